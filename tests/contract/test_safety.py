"""No module runs code from files or text, prints where it is not asked to, or hides an error."""

import ast

import pytest

UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "breakpoint"}
UNSAFE_METHODS = {"torch.load", "torch.save", "torch.hub.load", "os.system", "os.popen"}
PRINTERS = ("shoestring/cli/", "shoestring/train/report/display.py")


def unsafe(path: str, tree: ast.AST) -> list[str]:
    """One sentence for each use of something that runs, or can be made to run, code it did not write."""
    sentences = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            switches = {keyword.arg for keyword in node.keywords if ast.unparse(keyword.value) == "True"}
            if function in UNSAFE_CALLS | UNSAFE_METHODS or switches & {
                "allow_pickle",
                "trust_remote_code",
                "shell",
            }:
                sentences.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
        sentences += [f"{path}:{node.lineno}: imports {name}" for name in names if name in UNSAFE_MODULES]
    return sentences


def prints(tree: ast.AST) -> list[int]:
    """Lines that call print()."""
    return [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]


def hidden_errors(tree: ast.AST) -> list[int]:
    """Lines of handlers that catch everything unnamed, or catch all exceptions and do nothing."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (
                ast.unparse(node.type) in ("Exception", "BaseException")
                and all(isinstance(statement, ast.Pass) for statement in node.body)
            )
        )
    ]


def test_nothing_runs_code_from_files_or_text(package):
    assert not [sentence for source in package for sentence in unsafe(str(source), source.tree)]


def test_only_the_command_line_and_the_display_print(package):
    wrong = {str(s): prints(s.tree) for s in package if not str(s).startswith(PRINTERS)}
    assert not {path: lines for path, lines in wrong.items() if lines}


def test_no_error_is_hidden(everything):
    assert not {str(s): lines for s in everything if (lines := hidden_errors(s.tree))}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from marshal import loads",
        "torch.load('x.pt', weights_only=True)",
        "eval('1')",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(words, shell=True)",
    ],
)
def test_the_unsafe_is_seen(code):
    assert len(unsafe("x.py", ast.parse(code))) == 1


def test_the_harmless_is_not():
    assert unsafe("x.py", ast.parse("model.eval()\nnp.load(p, allow_pickle=False)\nre.compile('x')")) == []
    assert prints(ast.parse("console.print('x')")) == []


def test_hidden_errors_are_seen():
    assert hidden_errors(ast.parse("try:\n    f()\nexcept:\n    g()"))
    assert hidden_errors(ast.parse("try:\n    f()\nexcept Exception:\n    pass"))
    assert not hidden_errors(ast.parse("try:\n    f()\nexcept OSError:\n    pass"))
