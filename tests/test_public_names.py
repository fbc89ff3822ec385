"""The public names: what is promised is there, what is there is promised, and what docstrings say is so."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import cutlayer
from cutlayer import errors

SOURCE = Path(cutlayer.__file__).read_text()


def imported_for_types():
    """Return ``{name: module}`` of what ``cutlayer/__init__.py`` imports for type checkers."""
    block = next(
        n for n in ast.parse(SOURCE).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    found = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom) and statement.level == 1
        for alias in statement.names:
            assert alias.asname == alias.name, "a name is public to type checkers only as 'import X as X'"
            found[alias.name] = statement.module or ""
    return found


def modules():
    """Return the names of all modules of the package."""
    walked = pkgutil.walk_packages(cutlayer.__path__, "cutlayer.")
    return ["cutlayer", *(module.name for module in walked if not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", cutlayer.__all__)
def test_every_promised_name_is_there(name):
    thing = getattr(cutlayer, name)
    assert thing is not None
    if name in cutlayer._HOME:
        home = importlib.import_module(f"cutlayer.{cutlayer._HOME[name]}")
        assert thing is getattr(home, name) and name in home.__all__
    else:
        assert isinstance(thing, types.ModuleType)


def test_what_is_there_is_promised():
    """No public attribute of the package but the promised names and its own folders and files."""
    public = {name for name in dir(cutlayer) if not name.startswith("_")}
    assert public == set(cutlayer.__all__)
    namespace = {}
    exec("from cutlayer import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(cutlayer.__all__)
    folder = {p.stem for p in Path(cutlayer.__file__).parent.iterdir()}
    loaded = {name for name in vars(cutlayer) if not name.startswith("_")} - {
        "annotations",
        "importlib",
        "TYPE_CHECKING",
    }
    assert loaded <= folder


def test_type_checkers_and_python_find_the_same():
    for_types = imported_for_types()
    assert set(for_types) == set(cutlayer.__all__)
    assert {name: module for name, module in for_types.items() if name in cutlayer._HOME} == dict(
        cutlayer._HOME
    )
    rest = {
        name: f"{module}.{name}".lstrip(".")
        for name, module in for_types.items()
        if name in cutlayer._MODULES
    }
    assert rest == dict(cutlayer._MODULES)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'cutlayer' has no attribute 'Stduy'"):
        _ = cutlayer.Stduy


def test_importing_the_package_does_not_import_torch():
    slow = {"torch", "numpy", "pandas", "matplotlib", "sklearn"}
    code = f"import sys, cutlayer, cutlayer.errors; print(sorted({slow} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_the_version_is_that_of_the_distribution():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert f'\nversion = "{cutlayer.__version__}"\n' in pyproject.read_text()


@pytest.mark.parametrize("name", modules())
def test_every_promised_name_of_every_module_is_there(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert all(hasattr(module, word) for word in names)
    assert module.__doc__ and module.__doc__.strip().splitlines()[0].endswith((".", "::", ":"))


WITH_EXAMPLES = [name for name in modules() if ">>>" in inspect.getsource(importlib.import_module(name))]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted > 0 and result.failed == 0


# Errors


def drawn_tree():
    """Return ``{name: (parent, words)}`` as the docstring of ``cutlayer.errors`` draws it."""
    found, above = {}, {}
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+Error|PeerTimeout)(?:\s{2,}(.+))?", line)
        if match:
            depth = len(match[1]) // 4
            above[depth] = match[2]
            found[match[2]] = (above[depth - 1] if depth else "Exception", match[3])
    return found


def test_the_drawn_tree_of_errors_is_the_real_one():
    real = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception)
    }
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == real
    assert len(real) > 10


def test_every_drawn_error_says_what_it_is_about():
    assert all(words for name, (_, words) in drawn_tree().items() if name != "CutlayerError")
    assert all(
        getattr(errors, name).__doc__.endswith(".") or name == "CutlayerError" for name in drawn_tree()
    )


def test_a_message_is_made_of_its_parts():
    error = errors.FrameError("it is odd", party="a", cut="x->b", step=0, got="1", expected="2", todo="look")
    assert str(error) == "a, cut x->b, step 0: it is odd; got 1; expected 2; look"
    assert (error.what, error.party, error.cut, error.step) == ("it is odd", "a", "x->b", 0)
    assert (error.got, error.expected, error.todo) == ("1", "2", "look")
    assert str(errors.DataError("it is odd")) == "it is odd"
    assert str(errors.DataError("it is odd", step=3, todo="look")) == "step 3: it is odd; look"


def test_the_nearest_known_word_is_named():
    assert errors.nearest("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert errors.nearest("zzz", {"b", "a"}) == "known: a, b"
    assert errors.nearest("zzz", ()) == "nothing is known here"
