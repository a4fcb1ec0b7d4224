"""The commands: one row each, with its help, its options and the function that carries it out.

What they do is imported only when they are called.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from tensorgrad.cli.settings import (
    BY_NAME,
    DEFAULTS,
    OPTIONS,
    as_text,
    count,
    line,
    not_negative,
    port,
    positive,
    seed,
    sizes,
)

Argument = tuple[str, dict[str, Any]]


class Command(NamedTuple):
    """A command of ``tensorgrad``.

    summary, about: what it does, in a few words and in more. examples: each a line of the shell,
    and in a second one what it does. run: the module here and the function in it, given the options
    by name. settings: the defaults of those settings of a training run that are options, too.
    """

    name: str
    summary: str
    about: str
    examples: str
    run: str
    arguments: tuple[Argument, ...] = ()
    settings: Mapping[str, Any] = {}

    def __call__(self, **options: Any) -> int:
        """Carry it out; returns the exit code."""
        module, _, function = self.run.partition(".")
        found = getattr(importlib.import_module(f"tensorgrad.cli.{module}"), function)
        return found(**options) or 0

    def add_to(self, commands: Any) -> None:
        """Add its parser to those of all ``commands``."""
        parser: argparse.ArgumentParser = commands.add_parser(
            self.name,
            help=self.summary,
            description=self.about,
            epilog=f"examples:\n{self.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # what is not given shows, and a resumed run asks
        )
        for name, options in self.arguments:
            parser.add_argument(name, **options)
        _add_settings(parser, self.settings)


def _argument(name: str, metavar: str | None = None, **options: Any) -> Argument:
    return name, options if metavar is None else {"metavar": metavar, **options}


def _as_for_train(*names: str) -> tuple[Argument, ...]:
    """Settings that mean the same as when the network was trained."""
    settings = [BY_NAME[name] for name in names]
    return tuple(
        _argument(option.flag, option.metavar, type=option.kind, help="as for train")
        for option in settings
    )


def _add_settings(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """Add those settings of a training run as options that have a default here."""
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        if option.name not in defaults:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        text, default = option.help, defaults[option.name]
        if option.kind is None:
            kinds: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
            text += " (default: on)" if default else ""
        else:
            kinds = {"type": option.kind, "metavar": option.metavar}
            if option.choices is not None:
                kinds = {"choices": option.choices}
            text += "" if default is None else f" (default {as_text(default)})"
        groups[option.group].add_argument(option.flag, help=text, **kinds)


_RUN = _argument("run", "RUN", help="the folder of a run, as runs/digits-1")
_CONFIG = _argument(
    "--config", "FILE",
    help="settings from a TOML file, as config.toml of a run; options given here go before",
)  # fmt: skip
_NOT_OF_FOLDS = (
    "model", "hidden", "channels", "depth", "width", "layers", "heads", "tokens", "context",
    "test", "validation_share", "patience", "refit", "metrics", "checkpoint_steps",
    "checkpoint_minutes", "keep", "gradient_norms", "tensorboard", "live",
)  # fmt: skip

_DEMOS = (
    "cartpole", "autoencoder", "names", "word-vectors", "oscillator", "neural-ode",
    "vanishing-gradients", "xor", "overfitting", "steering",
)  # fmt: skip

COMMANDS = (
    Command(
        "train",
        "train a network on handwritten digits, or on images, tables or arrays of your own",
        "Trains a convolutional network on images, a small GPT on text, one of fully connected\n"
        "layers on all else, or the one of --model, and leaves in one folder its weights, a\n"
        "checkpoint to resume from, its history, a picture of its curves, and its settings.",
        """\
  tensorgrad train
      train a small network on the 1,797 handwritten digits that come along
  tensorgrad train --data photos --image-size 32x32 --grey
      images of your own: photos/cat/*.jpg, photos/dog/*.jpg, ...
  tensorgrad train --data mnist --out runs/mnist
      the four IDX files of MNIST, or of a relative of it, in the folder mnist
  tensorgrad train --data photos --image-size 32x32 --model resnet --depth 20
      a residual network in place of the small convolutional one
  tensorgrad train --data plays.txt
      a small GPT that learns to write as the text is written; see tensorgrad generate
  tensorgrad train --data vowels.csv --features f1,f2 --target vowel
      columns of a table; a target of numbers makes it a regression
  tensorgrad train --hidden 30 --activation sigmoid --optimizer sgd --lr 0.5 --momentum 0.9
      the network of the textbooks
  tensorgrad train --hidden 128,64 --dropout 0.2 --l2 1e-4 --patience 5 --schedule cosine
      a larger one, held back by dropout, a penalty and early stopping
  tensorgrad train --config runs/digits-1/config.toml --seed 1
      the settings of an earlier run, but for one
  tensorgrad train --resume runs/digits-1 --epochs 80
      go on with a run that was interrupted, or make it longer
""",
        "train.train",
        (
            _argument(
                "--resume", "DIR",
                help="folder of a run to go on with; only --epochs, --device and where the data is "
                "now may be given with it",
            ),
            _CONFIG,
            _argument("--live-port", "N", type=port,
                      help="as --live, and show the page on 127.0.0.1 at this port (0: any)"),
        ),
        DEFAULTS,
    ),
    Command(
        "resume",
        "go on with a run that was interrupted or killed",
        "Goes on from the newest whole checkpoint; the end has the same bits as without the\n"
        "interruption.",
        "  tensorgrad resume runs/digits-1\n  tensorgrad resume runs/digits-1 --epochs 100\n",
        "train.resume",
        (
            _RUN,
            _argument("--epochs", "N", type=count, help="in total, done ones too"),
            _argument("--device", "NAME", help="another device than before"),
            _argument("--data", "PATH", help="where the data is now, if it was moved"),
            _argument("--test", "PATH", help="where that to test with is now, if it was moved"),
            _argument(
                "--image-root", "PATH", help="where the images of a list are now, if it was moved"
            ),
        ),
    ),
    Command(
        "evaluate",
        "figures of a trained network on its test data, or on other data",
        "Prints the loss, accuracy, precision, recall, F1 and the confusion matrix (of numbers: "
        "R2\nand errors).",
        "  tensorgrad evaluate runs/digits-1\n"
        "  tensorgrad evaluate runs/pets-1 --data more_photos\n",
        "evaluate.evaluate",
        (
            _RUN,
            _argument("--data", "PATH", help="other data of the same kind"),
            _argument(
                "--part", choices=("train", "validation", "test"),
                help="of the run's own data (default test)",
            ),
            _argument("--json", action="store_true", help="print JSON"),
            *_as_for_train("device", "image_root", "label_pattern", "image_size"),
        ),
    ),
    Command(
        "predict",
        "what a trained network says of images, rows of a table, or arrays",
        "Prints a line of CSV for each example: the class and its probability, or the numbers.",
        "  tensorgrad predict runs/pets-1 cat7.jpg dog3.jpg\n"
        "  tensorgrad predict runs/vowels-1 new.csv --out answers.csv\n",
        "evaluate.predict",
        (
            _RUN,
            _argument("inputs", "FILE", nargs="+", help="images, tables or .npz"),
            _argument("--out", "FILE", help="a CSV file in place of the screen"),
            *_as_for_train("device", "image_size"),
        ),
    ),
    Command(
        "generate",
        "let a network that was trained on text go on with a text",
        "Prints the prompt and what the network writes after it, drawn token by token.",
        "  tensorgrad generate runs/plays-1\n"
        "  tensorgrad generate runs/plays-1 --prompt 'To be, ' --length 200 --temperature 0.5\n",
        "generate.generate",
        (
            _RUN,
            _argument("--prompt", "TEXT", type=line, default="", help="what to go on with"),
            _argument("--length", "N", type=count, default=500,
                      help="how many tokens to write (default 500)"),
            _argument(
                "--temperature", "T", type=not_negative, default=0.8,
                help="below 1 likely tokens become likelier, 0 takes the likeliest (default 0.8)",
            ),
            _argument("--top-k", "N", type=count, help="draw from the N likeliest alone"),
            _argument("--seed", "N", type=seed, default=0, help="of what is drawn (default 0)"),
            *_as_for_train("device"),
        ),
    ),
    Command(
        "cross-validate",
        "compare numbers of hidden units by k-fold cross-validation",
        "Trains each network k times, each time on all but one part of the data, and measures it\n"
        "on the part left out. Prints a table and leaves it, and a picture, in a folder.",
        "  tensorgrad cross-validate --hidden 2 --hidden 8 --hidden 32\n"
        "  tensorgrad cross-validate --data vowels.csv --target vowel --folds 10\n",
        "cross_validate.cross_validate",
        (
            _CONFIG,
            _argument(
                "--hidden", "SIZES", type=sizes, action="append",
                help='a network to compare, as 16 or 64,32 or "none"; may be given several times '
                "(default 2, 4, 8, 16, 32, 64, or that of --config)",
            ),
            _argument("--folds", "K", type=count, default=5, help="(default 5)"),
        ),
        {name: value for name, value in DEFAULTS.items() if name not in _NOT_OF_FOLDS},
    ),
    Command(
        "verify-resume",
        "kill training again and again, and prove that resuming loses nothing",
        "Trains once without interruption. Then trains, kills the process (SIGKILL) at a random\n"
        "moment, some of them in the middle of writing a checkpoint, resumes, and compares every\n"
        "bit of the weights and the optimizer. Exit code 1 if one differs.",
        "  tensorgrad verify-resume --kills 10\n",
        "verify_resume.verify_resume",
        (
            _argument("--kills", "N", type=count, default=100, help="(default 100)"),
            _argument("--seed", "N", type=seed, default=0, help="of the moments"),
            _argument("--epochs", "N", type=count, default=20, help="(default 20)"),
            _argument("--folder", "DIR", help="where to work (default a temporary one)"),
        ),
    ),
    Command(
        "demo",
        "applications and experiments: a cart balances a pole, vanishing gradients, steering, ...",
        "Runs an application or an experiment of the lectures, prints what it shows, and leaves\n"
        "its pictures in a folder. What the applications do can be read in tensorgrad/examples.",
        "  tensorgrad demo cartpole\n      deep Q-learning balances a pole on a cart\n"
        "  tensorgrad demo autoencoder --data mnist\n      digits from two numbers each\n"
        "  tensorgrad demo names --data names.txt\n      new names by three networks\n"
        "  tensorgrad demo word-vectors --data book.txt\n      which words are alike\n"
        "  tensorgrad demo oscillator\n      a network that obeys an equation\n"
        "  tensorgrad demo neural-ode\n      an equation that is a network\n"
        "  tensorgrad demo vanishing-gradients\n  tensorgrad demo xor\n"
        "  tensorgrad demo overfitting\n  tensorgrad demo steering --out runs/road\n",
        "demos.demo",
        (
            _argument("name", choices=_DEMOS),
            _argument("--data", "PATH", help="what to learn from, for those that need it"),
            _argument("--out", "DIR", help="new folder (default runs/<name>-<n>)"),
            _argument("--seed", "N", type=seed, help="of the random numbers"),
        ),
    ),
    Command(
        "playground",
        "a page on which a small network learns while you watch and change it",
        "Serves a page on 127.0.0.1, for browsers on this machine alone, until Ctrl-C. What is\n"
        "set there stands in the address behind #, which any playground opens.",
        "  tensorgrad playground\n"
        "  tensorgrad playground --data flowers.csv --columns length,width --target kind\n",
        "playground.playground",
        (
            _argument("--data", "FILE", help="a CSV table of your own to learn from"),
            _argument("--columns", "A,B", help="the two columns to see (default the first two)"),
            _argument("--target", "NAME", help="the column to learn (default the last)"),
            _argument("--port", "N", type=port, help="(default 8427, or any if that is in use)"),
            _argument("--no-browser", action="store_true", help="only print the address"),
        ),
    ),
    Command(
        "report",
        "one HTML page about a run, which opens without a network",
        "Writes report.html into the folder of the run: settings, curves, confusion matrix,\n"
        "weights as pictures, gradient norms where they were noted.",
        "  tensorgrad report runs/digits-1\n",
        "report.report",
        (_RUN, _argument("--out", "FILE", help="(default report.html in the folder)")),
    ),
    Command(
        "info",
        "versions, devices, and why a GPU is not used",
        "Shows versions, the machine and the devices, for bug reports and set-up.",
        "  tensorgrad info\n  tensorgrad info --operations > operations.md\n",
        "info.info",
        (
            _argument(
                "--operations", action="store_true",
                help="print the table of operations as Markdown",
            ),
        ),
    ),
    Command(
        "bench",
        "how fast training steps are on this machine",
        "Times steps of three networks, eager and compiled, each the median of many.",
        "  tensorgrad bench\n  tensorgrad bench --device cuda\n",
        "bench.bench",
        (
            _argument("--device", "NAME", help='"cpu", "cuda", ...'),
            _argument("--seconds", "N", type=positive, default=1.0,
                      help="for each line (default 1)"),
        ),
    ),
    Command(
        "completion",
        "what makes the shell complete commands and options",
        "Prints a script for the shell; needs argcomplete: pip install argcomplete",
        '  eval "$(tensorgrad completion bash)"\n',
        "completion.completion",
        (_argument("shell", choices=("bash", "zsh", "fish")),),
    ),
)  # fmt: skip
