"""What the tissues of the abdomen look like in CT and MR, by protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anamorph.data.phantoms.abdominal_organs import FISSURE_LANDMARKS
from anamorph.data.phantoms.shapes import Number

Tissues = Mapping[str, tuple[Number, Number]]
"""Tissue -> value and standard deviation of its texture."""

PORTAL_T2 = {
    # CT HU and its texture, T2-weighted MR signal and its texture
    "air": (-1000, 0, 0, 0),
    "couch": (-40, 0, 0, 0),
    "skin": (10, 8, 210, 15),
    "fat": (-102, 7, 570, 38),
    "muscle": (58, 9, 150, 18),
    "cortical bone": (560, 60, 60, 10),
    "marrow": (165, 42, 330, 35),
    "cartilage": (105, 12, 190, 15),
    "disc": (78, 10, 170, 15),
    "nucleus": (85, 8, 430, 30),
    "spinal fluid": (12, 4, 950, 10),
    "cord": (38, 4, 360, 10),
    "lung": (-840, 45, 40, 20),
    "lung vessel": (-250, 60, 70, 20),
    "heart": (118, 8, 210, 20),
    "blood": (150, 6, 90, 25),
    "artery": (162, 5, 70, 20),
    "vein": (148, 6, 110, 25),
    "liver vessel": (172, 5, 130, 20),
    "calcification": (700, 0, 20, 0),
    "liver": (104, 9, 250, 24),
    "tumour rim": (88, 10, 400, 30),
    "tumour": (62, 12, 440, 40),
    "necrosis": (34, 8, 640, 40),
    "cyst": (8, 3, 930, 10),
    "spleen": (124, 6, 400, 20),
    "kidney cortex": (178, 9, 380, 20),
    "kidney medulla": (146, 9, 500, 25),
    "urine": (10, 4, 940, 15),
    "adrenal": (72, 8, 260, 15),
    "pancreas": (92, 10, 310, 22),
    "gut wall": (84, 12, 230, 25),
    "colon wall": (72, 10, 220, 20),
    "gut contents": (22, 14, 640, 110),
    "faeces": (34, 26, 300, 90),
    "gastric fluid": (24, 9, 760, 70),
    "bile": (8, 4, 960, 12),
    "gas": (-960, 15, 4, 2),
}
PLAIN_T1 = {
    # CT HU and its texture, T1-weighted MR signal and its texture, neither with contrast agent
    "air": (-1000, 0, 0, 0),
    "couch": (-40, 0, 0, 0),
    "skin": (10, 8, 420, 25),
    "fat": (-102, 7, 880, 40),
    "muscle": (54, 9, 300, 22),
    "cortical bone": (560, 60, 50, 10),
    "marrow": (160, 42, 520, 45),
    "cartilage": (100, 12, 260, 20),
    "disc": (78, 10, 260, 20),
    "nucleus": (80, 8, 240, 20),
    "spinal fluid": (10, 4, 130, 10),
    "cord": (34, 4, 390, 10),
    "lung": (-840, 45, 40, 20),
    "lung vessel": (-280, 60, 70, 20),
    "heart": (46, 8, 320, 25),
    "blood": (42, 6, 180, 40),
    "artery": (42, 5, 120, 30),
    "vein": (41, 6, 210, 40),
    "liver vessel": (43, 5, 250, 30),
    "calcification": (700, 0, 20, 0),
    "liver": (59, 9, 540, 26),
    "tumour rim": (47, 9, 370, 25),
    "tumour": (42, 10, 340, 30),
    "necrosis": (28, 8, 230, 25),
    "cyst": (8, 3, 140, 10),
    "spleen": (49, 6, 350, 20),
    "kidney cortex": (35, 8, 430, 20),
    "kidney medulla": (31, 8, 310, 25),
    "urine": (6, 4, 140, 12),
    "adrenal": (28, 8, 380, 20),
    "pancreas": (41, 10, 580, 26),
    "gut wall": (40, 10, 330, 28),
    "colon wall": (38, 10, 330, 25),
    "gut contents": (22, 14, 290, 80),
    "faeces": (34, 26, 360, 110),
    "gastric fluid": (18, 9, 210, 45),
    "bile": (9, 4, 190, 30),
    "gas": (-960, 15, 4, 2),
}


@dataclass(frozen=True)
class Protocol:
    """A CT and an MR sequence.

    Args:
        mr_modality: "t1" or "t2".
        tissues: CT value, its texture, MR signal, its texture.
        hidden_landmarks: those that are not given.
    """

    mr_modality: str
    tissues: Mapping[str, tuple[Number, Number, Number, Number]]
    hidden_landmarks: tuple[str, ...] = ()

    @property
    def ct(self) -> Tissues:
        """HU."""
        return {name: values[:2] for name, values in self.tissues.items()}

    @property
    def mr(self) -> Tissues:
        """Signal."""
        return {name: values[2:] for name, values in self.tissues.items()}


PROTOCOLS = {
    "portal-t2": Protocol("t2", PORTAL_T2, hidden_landmarks=FISSURE_LANDMARKS),
    "plain-t1": Protocol("t1", PLAIN_T1),
}
"""Portal venous CT and T2; plain CT and T1."""
