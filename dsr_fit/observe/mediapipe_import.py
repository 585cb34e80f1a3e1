"""Imports MediaPipe's pose solution alone, and quietly.

`import mediapipe` runs matplotlib, sounddevice and every task API: 0.8 of its 1.0 s are for parts that are
never used here. The pose solution needs none of them, so it is imported below hollow parent packages, which
are taken away again: a later `import mediapipe` of the caller's gets the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsr_fit.errors import InputError

# Two threads that redirect at once would put each other's sink back.
_STDERR_LOCK = threading.RLock()

_REMEDY = "install it with `pip install mediapipe==0.10.21`, or give --keypoints FILE and --labels FILE instead"


def import_pose() -> types.ModuleType:
    """MediaPipe's module `mediapipe.python.solutions.pose`.

    Raises: InputError where MediaPipe is missing or can't be loaded, naming the remedy.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        if "mediapipe" in sys.modules:
            return importlib.import_module("mediapipe.python.solutions.pose")
        spec = importlib.util.find_spec("mediapipe")
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"MediaPipe is not installed; {_REMEDY}")
        with _hollow_packages(Path(spec.submodule_search_locations[0])):
            return importlib.import_module("mediapipe.python.solutions.pose")
    except ImportError as error:
        if "libGL" in str(error) or "libEGL" in str(error) or "libgthread" in str(error):
            raise InputError(
                f"a system library of OpenCV or MediaPipe is missing ({error}); "
                "`apt-get install libgl1 libglib2.0-0` (or your system's equivalent) brings it"
            ) from None
        raise InputError(f"MediaPipe can't be loaded ({error}); {_REMEDY}") from None


@contextmanager
def _hollow_packages(root: Path) -> Iterator[None]:
    """Parent packages whose `__init__` is not run; undone afterwards, so that they can be imported fully."""
    for name in ("mediapipe", "mediapipe.python.solutions"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        yield
    finally:
        # The extension module and protobuf's descriptors can't be loaded twice: these stay.
        for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
            if "_framework_bindings" not in name and not name.endswith("_pb2"):
                del sys.modules[name]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what C++ libraries write to file descriptor 2 off the terminal while the block runs.

    MediaPipe and TFLite log before their logging is configured, so no environment variable silences them.
    Python's warnings of protobuf are ignored as well.
    """
    with _STDERR_LOCK, tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="google.protobuf")
        try:
            saved = os.dup(2)
        except OSError:  # a process without a stderr has none to keep clean
            yield
            return
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
