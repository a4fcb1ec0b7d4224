"""The commands and their options. What they do is imported only when they are called."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_TRAIN_EXAMPLES = """\
examples:
  tensorgrad train
      train a small network on the 1,797 handwritten digits that come along
  tensorgrad train --hidden 30 --activation sigmoid --optimizer sgd --lr 0.5 --momentum 0.9
      the network of the textbooks
  tensorgrad train --hidden 128,64 --dropout 0.2 --l2 1e-4 --patience 5
      a larger one, held back by dropout, a penalty and early stopping
  tensorgrad train --data mnist --hidden 128 --epochs 10 --out runs/mnist
      the four IDX files of MNIST, or of a relative of it, in the folder mnist
  tensorgrad train --resume runs/digits-1 --epochs 80
      go on with a run that was interrupted, or make it longer
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _number(
    kind: Callable[[str], Any], what: str, test: Callable[[Any], bool]
) -> Callable[[str], Any]:
    """A converter for argparse that also checks the range; ``what`` names it in the error."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or not test(value):
            raise argparse.ArgumentTypeError(f"must be {what}, not {text!r}")
        return value

    return convert


_count = _number(int, "a whole number from 1", lambda n: n >= 1)
_seed = _number(int, "a whole number from 0 to 2**64 - 1", lambda n: 0 <= n < 1 << 64)
_positive = _number(float, "a number above 0", lambda x: x > 0)
_not_negative = _number(float, "a number from 0", lambda x: x >= 0)
_share = _number(float, "a number from 0 to below 1", lambda x: 0 <= x < 1)


def _batch_size(text: str) -> int | str:
    return text if text == "full" else int(_count(text))


def _sizes(text: str) -> list[int]:
    """ "64,32" as [64, 32]; "none" as no hidden layer."""
    if text == "none":
        return []
    try:
        return [_count(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f'must be the sizes of the hidden layers, as 64 or 64,32, or "none"; not {text!r}'
        ) from None


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="tensorgrad",
        description="A tensor engine with automatic differentiation.",
        epilog="tensorgrad COMMAND --help says more, by example.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    info = commands.add_parser(
        "info",
        help="versions, devices, and why a GPU is not used",
        description="Shows versions, the machine and the devices, for bug reports and set-up.",
        epilog="examples:\n  tensorgrad info\n  tensorgrad info --operations > operations.md\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument(
        "--operations", action="store_true", help="print the table of operations as Markdown"
    )
    return parser


def _add_train(commands: Any) -> None:
    from tensorgrad.cli.settings import ACTIVATIONS, DEFAULTS, INITS, OPTIMIZERS

    train = commands.add_parser(
        "train",
        help="train a network on handwritten digits, or on IDX files of your own",
        description=(
            "Trains a network that classifies images, and leaves in one folder its weights, a\n"
            "checkpoint to resume from, its history, a picture of its curves, and its settings."
        ),
        epilog=_TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what is not given shows, and --resume needs to know
    )

    def add(group: Any, name: str, metavar: str, kind: Any, text: str, choices: Any = None) -> None:
        default = DEFAULTS[name[2:].replace("-", "_")]
        if isinstance(default, list):
            default = ",".join(map(str, default))
        if default is not None:
            text += f" (default {default})"
        if choices is None:
            group.add_argument(name, metavar=metavar, type=kind, help=text)
        else:
            group.add_argument(name, choices=choices, help=text)

    data = train.add_argument_group("data")
    add(data, "--data", "FOLDER", str, "four IDX files as of MNIST, plain or .gz, in place of the "
        "embedded digits")  # fmt: skip
    add(data, "--batch-size", "N", _batch_size, 'examples per step, or "full"')
    model = train.add_argument_group("network")
    add(model, "--hidden", "SIZES", _sizes, 'sizes of the hidden layers, as 64,32, or "none"')
    add(model, "--activation", "", None, "of the hidden layers", tuple(ACTIVATIONS))
    add(model, "--init", "", None, "distribution of the first weights", INITS)
    add(model, "--dropout", "P", _share, "share of hidden units left out in each step")
    learning = train.add_argument_group("learning")
    add(learning, "--epochs", "N", _count, "passes over the training data, in total")
    add(learning, "--optimizer", "", None, "update rule", tuple(OPTIMIZERS))
    add(learning, "--lr", "RATE", _positive, "learning rate (default depends on the optimizer)")
    add(learning, "--momentum", "A", _share, "for sgd and rmsprop")
    add(learning, "--l1", "FACTOR", _not_negative, "penalty on the size of the weights")
    add(learning, "--l2", "FACTOR", _not_negative, "penalty on the squares of the weights")
    add(learning, "--patience", "N", _count, "stop after N epochs without a lower validation loss")
    add(learning, "--seed", "N", _seed, "what all random numbers follow from")
    run = train.add_argument_group("run")
    add(run, "--device", "NAME", str, '"cpu", "cuda", "cuda:1" or "auto"')
    run.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="run each step as a compiled program, or in Python (default: compiled)",
    )
    add(run, "--out", "DIR", str, "new folder for the results (default runs/<data>-<n>)")
    run.add_argument(
        "--resume",
        metavar="DIR",
        help="folder of a run to go on with; only --epochs and --device may be given with it",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for wrong input, 130 after Ctrl-C.

    argv: the words after the program's name; those of this process if None.
    """
    from tensorgrad.errors import TensorgradError

    try:
        args = vars(build_parser().parse_args(argv))
    except SystemExit as leave:  # --help, or an error already printed
        return leave.code if isinstance(leave.code, int) else 2
    command = args.pop("command")
    try:
        if command == "train":
            from tensorgrad.cli.train import train

            train(args)
        else:
            from tensorgrad.cli.info import info

            info(**args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, as head, has seen enough
        sys.stdout = None  # or Python tries to flush it at exit
        return 0
    except (TensorgradError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"tensorgrad {command}: error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        text = " ".join(map(str, interruption.args)) or "interrupted"
        print(f"tensorgrad {command}: {text}", file=sys.stderr)
        return 130
    return 0
