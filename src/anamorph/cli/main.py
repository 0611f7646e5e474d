"""The command ``anamorph``: finds the verb, runs it, and turns whatever happens into an exit code and one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from anamorph import __version__
from anamorph.cli.failures import INTERRUPTED, TERMINATED, Terminated, as_refusal, signals_raise
from anamorph.errors import ConfigurationError

VERBS = {
    "register": "Align two images; write the warped one, the map and a report.",
    "segment": "Label images by a trained model or by atlases; write a report.",
    "translate": "Make an image of one modality look like another's.",
    "warp": "Carry images, labels, masks or landmarks through transforms.",
    "convert": "Write transforms in another format, joined or inverted on request.",
    "check": "Tell what files or a cohort hold, what would be refused and why.",
    "gather": "Write the table of a cohort from a folder in a known layout.",
    "synthesise": "Make a cohort of phantoms with exact truth.",
    "prepare": "Plan a cohort's grid and intensities; cache what networks read.",
    "train": "Train a method on a prepared cohort; write a model and a report.",
    "evaluate": "Score models, engines, other tools or files over a cohort.",
    "compare": "Put scores side by side, with tests, as tables and a page.",
    "atlas": "Build an atlas of a cohort; export it, or show it.",
    "features": "Draw what descriptors see in images: maps and a picture.",
    "experiment": "Make a paper's table from its file, start to end.",
    "demo": "Make a CT-MR pair with known truth, register it, score the result.",
    "doctor": "Tell what this machine offers, and what is missing.",
}
GOES_ON = (("prepare",), ("evaluate",), ("experiment",), ("atlas", "build"), ("segment", "--atlases"))
"""Words of command lines that go on where they were; trainings say so themselves."""
LIST = "\n".join(f"  {verb:<12}{purpose}" for verb, purpose in VERBS.items())
HELP = f"""usage: anamorph [-h] [--version] VERB ...

Align and segment medical images across modalities.

{LIST}

anamorph VERB --help tells a verb's flags.

Example: anamorph register ct.nii.gz mr.nii.gz --out result

Exit codes: 0 done, 2 usage or settings, 3 input refused, 4 memory, disk or
device, 5 numerical or quality failure, 6 suspicious file, 1 our own fault."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default the program's own; returns the exit code and never raises."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"anamorph {__version__}")
        return 0
    debug = "--debug" in arguments
    try:
        with signals_raise():
            return _run(arguments[0], arguments[1:])
    except SystemExit as stop:  # after --help
        return int(stop.code or 0)
    except (KeyboardInterrupt, Terminated) as error:
        _complain(f"interrupted: {_after_interruption(arguments)}")
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else TERMINATED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        return _fail(error, debug)


def _after_interruption(arguments: Sequence[str]) -> str:
    if any(arguments[0] == words[0] and {*words} <= {*arguments} for words in GOES_ON):
        return "what is done is kept, and the same command goes on"
    return "the results are not complete"


def _run(verb: str, arguments: Sequence[str]) -> int:
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        do = f"did you mean {near[0]}?" if near else "see anamorph --help"
        raise ConfigurationError("E-CFG-010", f"{verb!r} is no verb", expected=", ".join(VERBS), do=do)
    from anamorph.cli.arguments import parse

    module = import_module(f"anamorph.cli.{verb}")
    request, terminal = parse(module.FORM, arguments, f"anamorph {verb}", VERBS[verb])
    from anamorph.cli.screen import Screen

    screen = Screen(terminal.quiet)
    with screen.showing_warnings():
        return module.run(request, screen)


def _fail(error: BaseException, debug: bool) -> int:
    refusal = as_refusal(error)
    if debug:
        import traceback

        traceback.print_exception(error)
    if refusal is not None:
        _complain(str(refusal))
        return refusal.exit_code
    more = "" if debug else "; the same command with --debug tells where"
    _complain(f"anamorph failed by a fault of its own ({type(error).__name__}): please report it{more}")
    return 1


def _complain(line: str) -> None:
    from anamorph.cli.screen import Screen

    Screen().error(line)


if __name__ == "__main__":
    sys.exit(main())
