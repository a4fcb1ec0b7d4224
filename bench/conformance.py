"""What suites and libraries of others say: ``python -m bench.conformance array-api --source DIR``.

``array-api`` runs the conformance suite of the array API standard, which is fetched into DIR (of
github.com/data-apis/array-api-tests, with its submodule; its requirements have to be installed).
``scikit-learn`` and ``scipy`` give tensors to functions of these libraries that take arrays of any
namespace, and compare what comes back with what they give for NumPy's arrays; for SciPy's it is
said, too, how many results have a gradient.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from tensorgrad.errors import GradientError


class Report(NamedTuple):
    """How many tests or calls there were, and of what failed or was skipped name and reason."""

    total: int
    failed: Mapping[str, str]
    skipped: Mapping[str, str]

    @property
    def passed(self) -> int:
        """How many did what they should."""
        return self.total - len(self.failed) - len(self.skipped)

    def show(self, name: str) -> None:
        """Print the figures, and a line for each that did not pass."""
        print(
            f"{name}: {self.passed} of {self.total} passed, {len(self.failed)} failed, "
            f"{len(self.skipped)} skipped"
        )
        for word, of in (("failed", self.failed), ("skipped", self.skipped)):
            for key, reason in of.items():
                print(f"  {word}: {key}: {' '.join(reason.split())[:160]}")


# --- the array API suite --------------------------------------------------------------------------


def array_api(source: Path, version: str, examples: int, only: str | None) -> Report:
    """What the suite in a folder says of the namespace ``tensorgrad``."""
    if not (source / "array_api_tests").is_dir():
        raise SystemExit(
            f"{source} has no folder array_api_tests; fetch the suite with "
            "git clone --recurse-submodules https://github.com/data-apis/array-api-tests"
        )
    here = Path(__file__).resolve().parent.parent
    environment = {
        **os.environ,
        "ARRAY_API_TESTS_MODULE": "tensorgrad",
        "ARRAY_API_TESTS_VERSION": version,
        "PYTHONPATH": os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "array_api_tests", "-q", "-p", "no:cacheprovider",
            "--max-examples", str(examples), "--disable-deadline", f"--junitxml={written}",
        ]  # fmt: skip
        command += ["-k", only] if only else []
        ended = subprocess.run(command, cwd=source, env=environment, stdout=subprocess.DEVNULL)
        if not written.exists():
            raise SystemExit(f"pytest ended with {ended.returncode} and wrote no report")
        return read_report(written.read_text())


def read_report(text: str) -> Report:
    """The figures in a report of pytest in JUnit's form."""
    count = 0
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for case in ElementTree.fromstring(text).iter("testcase"):
        count += 1
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        for part in case:
            if part.tag in ("failure", "error"):
                failed[name] = part.get("message", "")
            elif part.tag == "skipped":
                skipped[name] = part.get("message", "")
    return Report(count, failed, skipped)


# --- libraries ------------------------------------------------------------------------------------

Call = Callable[..., Any]


def compared(
    calls: Mapping[str, Call], given: Sequence[Any], tensors: Callable[[Call], Any]
) -> Report:
    """Whether calls of a library give for tensors the numbers that they give for arrays."""
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name, call in calls.items():
        try:
            wanted = _numbers(call(*given))
        except Exception as error:
            skipped[name] = f"not of arrays either: {error}"
            continue
        try:
            found = _numbers(tensors(call))
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return Report(len(calls), failed, skipped)


def _numbers(x: Any) -> Any:
    return np.asarray(x.detach().numpy() if hasattr(x, "node") else x, np.float64)


def scikit_learn() -> Report:
    """scikit-learn with ``array_api_dispatch``."""
    os.environ["SCIPY_ARRAY_API"] = "1"  # read as SciPy is imported
    import sklearn

    import tensorgrad as tg

    given = _examples()

    def of_tensors(call: Call) -> Any:
        with sklearn.config_context(array_api_dispatch=True):
            return call(*[tg.tensor(a) for a in given])

    return compared(_scikit_learn_calls(), given, of_tensors)


def _examples() -> list[Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5))
    labels = (x[:, 0] + 0.3 * rng.standard_normal(60) > 0).astype(np.int64)
    return [x, labels, x @ rng.standard_normal(5) + 0.1 * rng.standard_normal(60)]


def _scikit_learn_calls() -> dict[str, Call]:
    from sklearn import decomposition, linear_model, metrics, preprocessing
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import pairwise
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import cross_val_predict, train_test_split
    from sklearn.naive_bayes import GaussianNB

    pca: Any = decomposition.PCA
    scale: Any = preprocessing
    mixture: Any = GaussianMixture(2, random_state=0, init_params="random")
    return {
        "PCA(full)": lambda x, y, t: pca(3, svd_solver="full").fit(x).transform(x),
        "PCA(covariance)": lambda x, y, t: pca(2, svd_solver="covariance_eigh").fit_transform(x),
        "PCA(randomized)": lambda x, y, t: pca(
            2, svd_solver="randomized", random_state=0, power_iteration_normalizer="QR"
        ).fit_transform(x),
        "Ridge": lambda x, y, t: linear_model.Ridge(solver="svd").fit(x, t).predict(x),
        "RidgeClassifier": lambda x, y, t: (
            linear_model.RidgeClassifier(solver="svd").fit(x, y).predict(x)
        ),
        "LinearDiscriminantAnalysis": lambda x, y, t: (
            LinearDiscriminantAnalysis().fit(x, y).predict(x)
        ),
        "GaussianNB": lambda x, y, t: GaussianNB().fit(x, y).predict_proba(x),
        "GaussianMixture": lambda x, y, t: mixture.fit(x).means_,
        "StandardScaler": lambda x, y, t: scale.StandardScaler().fit_transform(x),
        "MinMaxScaler": lambda x, y, t: scale.MinMaxScaler().fit_transform(x),
        "MaxAbsScaler": lambda x, y, t: scale.MaxAbsScaler().fit_transform(x),
        "Normalizer": lambda x, y, t: scale.Normalizer().fit_transform(x),
        "Binarizer": lambda x, y, t: scale.Binarizer().fit_transform(x),
        "LabelEncoder": lambda x, y, t: scale.LabelEncoder().fit_transform(y),
        "PolynomialFeatures": lambda x, y, t: scale.PolynomialFeatures(2).fit_transform(x),
        "KernelCenterer": lambda x, y, t: scale.KernelCenterer().fit_transform(x @ x.T),
        "accuracy_score": lambda x, y, t: metrics.accuracy_score(y, y),
        "confusion_matrix": lambda x, y, t: metrics.confusion_matrix(y, 1 - y),
        "f1_score": lambda x, y, t: metrics.f1_score(y, 1 - y * 0),
        "log_loss": lambda x, y, t: metrics.log_loss(y, y * 0.6 + 0.2),
        "mean_absolute_error": lambda x, y, t: metrics.mean_absolute_error(t, t * 0.9),
        "mean_squared_error": lambda x, y, t: metrics.mean_squared_error(t, t * 0.9),
        "r2_score": lambda x, y, t: metrics.r2_score(t, t * 0.9),
        "cosine_similarity": lambda x, y, t: pairwise.cosine_similarity(x),
        "euclidean_distances": lambda x, y, t: pairwise.euclidean_distances(x)[:3, 5:],
        "polynomial_kernel": lambda x, y, t: pairwise.polynomial_kernel(x),
        "rbf_kernel": lambda x, y, t: pairwise.rbf_kernel(x),
        "train_test_split": lambda x, y, t: train_test_split(x, y, random_state=0)[0],
        "cross_val_predict": lambda x, y, t: cross_val_predict(LinearDiscriminantAnalysis(), x, y),
    }


#: functions of scipy.stats of one sample, of two, and of positive numbers
_OF_ONE = (
    "circmean", "circstd", "circvar", "describe", "jarque_bera", "kurtosis", "kurtosistest",
    "lmoment", "moment", "normaltest", "rankdata", "sem", "skew", "skewtest", "tmax", "tmean",
    "tmin", "tsem", "tstd", "tvar", "zscore",
)  # fmt: skip
_OF_TWO = ("bartlett", "f_oneway", "mannwhitneyu", "pearsonr", "ttest_ind", "ttest_rel", "zmap")
_OF_POSITIVE = (
    "chisquare", "entropy", "gmean", "gzscore", "hmean", "power_divergence", "variation",
)  # fmt: skip


def scipy() -> tuple[Report, Sequence[str]]:
    """SciPy with ``SCIPY_ARRAY_API=1``; and which of the calls give what has a gradient."""
    os.environ["SCIPY_ARRAY_API"] = "1"  # read as SciPy is imported
    from scipy import stats

    import tensorgrad as tg

    rng = np.random.default_rng(0)
    given = [rng.standard_normal(30), rng.standard_normal(30) + 0.2, rng.uniform(0.5, 1.5, 30)]

    def called(name: str, which: slice) -> Call:
        def call(*samples: Any) -> Any:
            found = getattr(stats, name)(*samples[which])
            return getattr(found, "variance", getattr(found, "statistic", found))

        return call

    calls = {name: called(name, slice(0, 1)) for name in _OF_ONE}
    calls.update({name: called(name, slice(0, 2)) for name in _OF_TWO})
    calls.update({name: called(name, slice(2, 3)) for name in _OF_POSITIVE})
    report = compared(calls, given, lambda call: call(*map(tg.tensor, given)))
    recorded = []
    for name, call in calls.items():
        if name not in report.failed and name not in report.skipped:
            with contextlib.suppress(GradientError):  # a p-value of compiled code goes along
                found = call(*[tg.tensor(a, requires_grad=True) for a in given])
                if getattr(found, "requires_grad", False):
                    recorded.append(name)
    return report, recorded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of them, and print what it says; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description=__doc__)
    parser.add_argument("suite", choices=("array-api", "scikit-learn", "scipy"))
    parser.add_argument("--source", type=Path, metavar="DIR", help="where the suite lies")
    parser.add_argument("--version", default="2025.12", help="of the standard (default: 2025.12)")
    parser.add_argument("--examples", type=int, default=20, help="for each test (default: 20)")
    parser.add_argument("--only", metavar="TEXT", help="the tests that pytest's -k chooses by it")
    options = parser.parse_args(arguments)
    if options.suite == "array-api":
        if options.source is None:
            parser.error("array-api: say where the suite lies, by --source DIR")
        found = array_api(options.source, options.version, options.examples, options.only)
        found.show(f"array API suite, {options.version}")
        return int(bool(found.failed))
    warnings.simplefilter("ignore")
    if options.suite == "scikit-learn":
        found = scikit_learn()
        found.show("scikit-learn with array_api_dispatch")
    else:
        found, recorded = scipy()
        found.show("scipy.stats with SCIPY_ARRAY_API=1")
        print(f"  with a gradient: {len(recorded)}")
    return int(bool(found.failed))


if __name__ == "__main__":
    raise SystemExit(main())
