"use strict";
(() => {
  const page = document.documentElement;
  document.addEventListener("securitypolicyviolation", () => { page.dataset.csp = String(Number(page.dataset.csp) + 1); });

  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];

  function connectDivider() {
    const range = one("[data-divider]");
    if (!range) return;
    const move = () => {
      for (const svg of all(".splitter svg")) {
        const x = (svg.viewBox.baseVal.width * range.value) / 100;
        svg.querySelector(".cover").setAttribute("width", x);
        for (const name of ["x1", "x2"]) svg.querySelector(".handle line").setAttribute(name, x);
        svg.querySelector(".handle circle").setAttribute("cx", x);
      }
    };
    range.addEventListener("input", move);
    for (const svg of all(".splitter svg")) {
      const follow = (event) => {
        const box = svg.getBoundingClientRect();
        range.value = (100 * (event.clientX - box.left)) / box.width;
        move();
      };
      svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); follow(event); });
      svg.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
    }
  }

  const embedded = (id) => document.getElementById(id).textContent;

  // The viewer's code travels compressed; the page's policy names the hash of what comes out, so nothing else can run.
  async function loadViewerCode() {
    const bytes = Uint8Array.from(atob(embedded("viewer-code")), (c) => c.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
    if (!globalThis.niivue) throw new Error("the viewer's code did not run");
    return globalThis.niivue;
  }

  function drewSomething(gl) {
    const width = gl.drawingBufferWidth, height = gl.drawingBufferHeight;
    const pixels = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    const levels = new Set();
    for (let i = 0; i < pixels.length && levels.size < 16; i += 4) levels.add(pixels[i]);
    return levels.size >= 16;
  }

  async function startViewer() {
    const index = JSON.parse(embedded("viewer-index"));
    const { Niivue, NVImage, SLICE_TYPE } = await loadViewerCode();
    const nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.69, 0, 0.7], crosshairWidth: 0.75, isRadiologicalConvention: true,
      sagittalNoseLeft: true, multiplanarShowRender: 0, multiplanarPadPixels: 6, dragAndDropEnabled: false,
      scrollRequiresFocus: true, fontColor: [0.8, 0.82, 0.84, 1], loadingText: "", logLevel: "error",
    });
    await nv.attachToCanvas(one("#viewer"), true);
    nv.setSliceType(SLICE_TYPE.MULTIPLANAR);

    const loaded = new Map();
    const volume = async (key) => {
      if (!loaded.has(key)) {
        const image = await NVImage.loadFromBase64({ base64: embedded(`volume-${key}`), name: `${key}.nii.gz`, colormap: "gray", cal_min: 0, cal_max: 255 });
        if (index.labels.includes(key)) image.setColormapLabel(index.colours);
        loaded.set(key, image);
      }
      return loaded.get(key);
    };
    const share = (selector) => Number(one(selector)?.value ?? 0) / 100;

    const chosenBase = () => one("[name=base]:checked, [name=base] option:checked").value;

    const show = async () => {
      const base = await volume(chosenBase());
      base.opacity = 1;
      const stack = [base];
      const blend = one("[data-blend]").value;
      one("[data-blend-opacity]").disabled = !blend;
      if (blend && blend !== chosenBase()) {
        const image = await volume(blend);
        image.opacity = share("[data-blend-opacity]");
        stack.push(image);
      }
      for (const box of all("[data-labels]:checked")) {
        const labels = await volume(box.value);
        labels.opacity = share("[data-label-opacity]");
        stack.push(labels);
      }
      nv.volumes = stack;
      nv.setVolume(base, 0);
    };
    nv.onLocationChange = (place) => {
      const values = place.values.map((v) => (index.labels.includes(v.name.replace(".nii.gz", "")) ? index.names[Math.round(v.value)] ?? "" : ""));
      const at = [...place.mm].slice(0, 3).map((x) => x.toFixed(1)).join(", ");
      one("[data-place]").textContent = `${at} mm (R, A, S)  ${[...new Set(values.filter(Boolean))].join(", ")}`;
    };
    await show();
    nv.scene.crosshairPos = nv.mm2frac(index.crosshair);
    nv.createOnLocationChange();
    nv.drawScene();
    page.dataset.viewer = drewSomething(nv.gl) ? "drawn" : "blank";
    one("[data-message]").remove();
    let pending = Promise.resolve();
    for (const control of all(".panel select, .panel input")) control.addEventListener("input", () => { pending = pending.then(show); });
  }

  document.addEventListener("DOMContentLoaded", () => {
    connectDivider();
    if (!document.getElementById("viewer-index")) return;
    page.dataset.viewer = "loading";
    startViewer().catch((error) => {
      page.dataset.viewer = "unavailable";
      one("[data-message]").textContent = `The viewer cannot run here (${error.message}). The pictures above show the same images.`;
    });
  });
})();
