"""Small faults put into every hand-written backward, one at a time: do the gradient checks notice each of them?

    python tests/support/mutants.py [--verbose]

A mutant is a copy of an op with one change in its backward: an operator, a sign, a factor, a
term, a constant, a name or a call. It is caught if a gradient of a case in `minidraw.gradcheck_cases`
fails, has the wrong shape, or is missing, or if the backward raises. A survivor is either
explained in EQUIVALENT, for it computes the same gradient, or a gap in the checks.

Only the backward differs from the op, so the two witnesses are computed once for a case.
"""

import argparse
import ast
import importlib
import inspect
import sys
import types
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np

from minidraw import backend, gradcheck, gradcheck_cases

MODULES = ("affine", "lstm", "latent", "bernoulli", "cross_entropy", "attention", "elementary")

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
FUNCTIONS = {
    "multiply": ("divide", "add"),
    "zeros_like": ("ones_like", "empty_like"),
    "empty_like": ("zeros_like", "ones_like"),
}

ANY_NEGATIVE = "reshape infers the one dimension that is negative, whichever negative number stands there."
WRITTEN_OVER = "Every element is written before it is read."

# (op, the mutated statement) -> why its gradient is the same for every input
EQUIVALENT = {
    ("plain_filterbank", "dp = -xp.zeros_like(p)"): "Minus zero: something is added to it, or written over it.",
    ("write", "dstroke = dstroke.reshape(batch, -2, B, A)"): ANY_NEGATIVE,
    ("write", "drows = dnarrow.reshape(batch, -2, A)"): ANY_NEGATIVE,
} | {
    ("filterbank", f"{name} = {other}_like({like})"): WRITTEN_OVER
    for name, like in (("FdF", "F"), ("dp", "p"))
    for other in ("-xp.empty", "xp.zeros", "xp.ones")
}


class Mutant(NamedTuple):
    """One change in the backward of one op; `function` is the changed op, bare."""

    op: str
    file: str
    line: int
    kind: str
    original: str
    mutated: str
    function: callable

    @property
    def reason(self):
        """Why the mutant is equivalent, or None where nobody has explained it."""
        return EQUIVALENT.get((self.op, self.mutated))

    def __str__(self):
        return f"{self.file}:{self.line}  {self.op}, {self.kind}:  {self.original}   ->   {self.mutated}"


# The changes. A slot (container, key) is a place in the tree: container[key] is the node that stands there.


def children(node):
    """The slots of the nodes right below `node`."""
    for field, child in ast.iter_fields(node):
        container, keys = (child, range(len(child))) if isinstance(child, list) else (vars(node), [field])
        for key in keys:
            if isinstance(container[key], ast.AST):
                yield container, key


def slots(node, statement=None):
    """Every slot below `node`, with the slot of the innermost statement around it."""
    for container, key in children(node):
        inner = (container, key) if isinstance(container[key], ast.stmt) else statement
        yield inner, container, key
        if not (isinstance(container[key], ast.Call) and is_module(container[key])):  # all arrays are of one library
            yield from slots(container[key], inner)


def signed(container, key):
    """The slots of the arrays that make up an expression: what a wrong sign would be in front of."""
    node = container[key]
    if isinstance(node, ast.Tuple):
        for k in range(len(node.elts)):
            yield from signed(node.elts, k)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "FactoredGradient":  # not an array, but two
        yield from signed(node.args, 0)
    elif isinstance(node, ast.ListComp):  # several arrays
        yield from signed(vars(node), "elt")
    elif not isinstance(node, ast.Constant | ast.List | ast.Starred):
        yield container, key


def is_module(node):
    """Whether an expression is an array library: `xp`, or `array_module(a)`."""
    return ast.unparse(node).partition("(")[0] in ("xp", "array_module")


def changes(container, key, names):
    """The changes at one slot, as (kind, container, key, new node). `names` are those that a name may turn into."""

    def change(kind, new):
        return kind, container, key, new

    node = container[key]
    match node:
        case ast.BinOp(left, operator, right):
            yield change("operator", ast.BinOp(left, OPERATORS[type(operator)](), right))
            kind = "term" if isinstance(operator, ast.Add | ast.Sub) else "factor"
            yield change(kind, left)
            yield change(kind, right)
        case ast.AugAssign(target, operator, value):
            yield change("operator", ast.AugAssign(target, OPERATORS[type(operator)](), value))
            kind = "term" if isinstance(operator, ast.Add | ast.Sub) else "factor"
            yield change(kind, ast.Pass())
            yield change(kind, ast.Assign([target], value, lineno=node.lineno))
        case ast.Compare(left, [operator], comparators):
            yield change("operator", ast.Compare(left, [OPERATORS[type(operator)]()], comparators))
        case ast.UnaryOp(ast.USub(), operand):
            yield change("sign", operand)
        case ast.Constant(bool(value)):
            yield change("constant", ast.Constant(not value))
        case ast.Constant(int(value)):
            for other in (value - 1, value + 1) if value else (1,):
                yield change("constant", ast.Constant(other))
        case ast.Constant(float(value)):
            yield change("constant", ast.Constant(2 * value))
        case ast.Name(name, ast.Load()):
            for other in names if name in names else ():
                yield change("name", ast.Name(other, ast.Load()))
        case ast.Call(function, arguments, keywords) if not is_module(node):
            if isinstance(function, ast.Attribute) and not is_module(function.value):
                yield change("call", function.value)  # a.sum() -> a
            elif arguments:
                yield change("call", arguments[0])  # xp.exp(a) -> a
            for k in range(len(keywords)):
                yield change("call", ast.Call(function, arguments, keywords[:k] + keywords[k + 1 :]))
        case ast.Attribute(value, name, context) if name in FUNCTIONS:
            for other in FUNCTIONS[name]:
                yield change("call", ast.Attribute(value, other, context))

    arrays = ()
    match node:
        case ast.Assign() | ast.AugAssign() | ast.Return():
            arrays = signed(vars(node), "value")
        case ast.Expr(ast.Call(_, arguments)):  # its result is put somewhere, by out= for example
            arrays = ((arguments, k) for k in range(len(arguments)))
    for where, k in arrays:
        yield "sign", where, k, ast.UnaryOp(ast.USub(), where[k])


def bindings(function):
    """The names that a function binds, with the first line that does: its arguments, and what it assigns."""
    nested = {node for f in function.body if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    lines = {}
    for node in ast.walk(function):
        if node in nested:
            continue
        if isinstance(node, ast.arg):
            lines[node.arg] = function.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    return lines


# The mutants


NUMPY = types.ModuleType("numpy")
vars(NUMPY).update(vars(np), empty_like=lambda a: np.full_like(a, np.nan))


def array_module(array):
    """The library's, but its `empty_like` gives NaNs: memory just freed may hold the very gradient that is missing."""
    xp = backend.array_module(array)
    return NUMPY if xp is np else xp


def first_line(node):
    """One line of source: all of a statement, or the head of an `if` or a `for`."""
    return ast.unparse(node).splitlines()[0]


def compiled(op, definitions, module):
    """The bare function of `op`, from the syntax trees of its definition and of kernels that it calls."""
    namespace = {**vars(module), "array_module": array_module}
    exec(compile(ast.fix_missing_locations(ast.Module(definitions, [])), "mutant", "exec"), namespace)
    return namespace[op.name].on_arrays


def mutants_of(op, module, file):
    """Every different mutant of `op`, the definition of an op with a nested `backward`.

    What changes is the backward, or a kernel that it calls: a function below `fuse` in the same module. The first is
    none: the op as it is, made in the same way.
    """
    yield Mutant(op.name, file, op.lineno, "none", first_line(op), first_line(op), compiled(op, [op], module))
    (backward,) = (node for node in op.body if isinstance(node, ast.FunctionDef))
    outside = {name: 0 for name in bindings(op) if name != "xp"}
    yield from mutants_in(backward, outside | bindings(backward), op, [op], module, file)
    called = {node.func.id for node in ast.walk(backward) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
    for kernel in ast.parse(inspect.getsource(module)).body:
        decorators = [ast.unparse(decorator) for decorator in getattr(kernel, "decorator_list", ())]
        if decorators == ["fuse"] and kernel.name in called:
            yield from mutants_in(kernel, bindings(kernel), op, [kernel, op], module, file)


def mutants_in(function, scope, op, definitions, module, file):
    """The mutants of `op` that differ within `function`, where `scope` tells which names are bound from which line."""
    seen = {ast.unparse(function)}
    for statement, container, key in list(slots(ast.Module(function.body, []))):
        holder, place = statement
        line, original = holder[place].lineno, first_line(holder[place])
        names = [name for name, bound in scope.items() if bound < line]
        for kind, where, k, new in list(changes(container, key, names)):
            old, where[k] = where[k], new
            source = ast.unparse(function)
            if source not in seen:
                seen.add(source)
                mutated = first_line(holder[place])
                yield Mutant(op.name, file, line, kind, original, mutated, compiled(op, definitions, module))
            where[k] = old


def ops_with_backward():
    """Every op as (its definition, its module, its file)."""
    for name in MODULES:
        module = importlib.import_module(f"minidraw.ops.{name}")
        file = f"minidraw/ops/{name}.py"
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.FunctionDef) and hasattr(getattr(module, node.name), "on_arrays"):
                yield node, module, file


# The checks


class Reference:
    """A case with its cotangents and its two witnesses, against which any backward can be held."""

    def __init__(self, case):
        self.case = case
        rng = np.random.default_rng(gradcheck_cases.SEED)
        value, _ = case.op(*case.inputs, **case.settings)
        self.cotangents = [rng.standard_normal(output.shape) for output in gradcheck.as_tuple(value)]
        self.wanted = self.witnesses(case.inputs, self.cotangents)

    def witnesses(self, inputs, cotangents):
        return gradcheck.witnesses(partial(self.case.op, **self.case.settings), inputs, self.case.names, cotangents)

    def passes(self, op):
        """Whether the gradients of `op` pass, as in `gradcheck.check`; what that raises, this raises."""
        case = self.case
        inputs, cotangents = [i.copy() for i in case.inputs], [c.copy() for c in self.cotangents]
        value, backward = op(*inputs, **case.settings)
        outputs = [output.copy() for output in gradcheck.as_tuple(value)]
        gradients = gradcheck.as_tuple(backward(*cotangents))
        if not all(np.array_equal(*pair) for pair in zip(gradcheck.as_tuple(value), outputs, strict=True)):
            return False  # the backward wrote into what the op had returned
        wanted = self.wanted
        pairs = zip(inputs + cotangents, case.inputs + self.cotangents, strict=True)
        if not all(np.array_equal(now, before) for now, before in pairs):
            wanted = self.witnesses(inputs, cotangents)  # the backward wrote into what it was given
        return all(row.passed for row in gradcheck.compare(case.label, case.names, gradients, wanted))


def references(op):
    """The References of the cases of a bare op."""
    return [Reference(case) for case in gradcheck_cases.op_cases() if case.op is op]


def is_caught(function, against):
    """Whether any of the References `against` fails for the mutant `function`."""
    try:
        return not all(reference.passes(function) for reference in against)
    except Exception:  # whatever the mutant raises, it is noticed
        return True


def judged(ops=None):
    """Every mutant of the named ops (None: of all) with whether it is caught, op by op."""
    known = list(ops_with_backward())
    wanted = {op.name for op, _, _ in known} if ops is None else set(ops)
    if not wanted <= {op.name for op, _, _ in known}:
        raise ValueError(f"not all of {sorted(wanted)} are ops")  # or a misspelt name would leave no survivors
    for op, module, file in known:
        if op.name not in wanted:
            continue
        function = getattr(module, op.name).on_arrays
        against = references(function)
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # a mutant may divide by zero
            warnings.simplefilter("ignore")
            (itself, caught), *results = [
                (mutant, is_caught(mutant.function, against)) for mutant in mutants_of(op, module, file)
            ]
            if caught:
                raise RuntimeError(f"{itself.op} fails its own checks: its mutants would say nothing")
        yield from results


def survivors(ops=None):
    """The mutants of the named ops (None: of all) that no check catches and EQUIVALENT does not explain."""
    return [mutant for mutant, caught in judged(ops) if not caught and mutant.reason is None]


# The command


def main():
    """Print a table, every survivor and the totals; the exit status is 1 if a survivor is not explained."""
    parser = argparse.ArgumentParser(description="Mutate every backward; report what the gradient checks miss.")
    parser.add_argument("--verbose", action="store_true", help="print every mutant")
    verbose = parser.parse_args().verbose
    columns = ("mutants", "caught", "equivalent", "surviving")
    counts, left = {}, []
    for mutant, caught in judged():
        verdict = "caught" if caught else "surviving" if mutant.reason is None else "equivalent"
        count = counts.setdefault(mutant.op, dict.fromkeys(columns, 0))
        count["mutants"] += 1
        count[verdict] += 1
        if not caught:
            left.append(mutant)
        if verbose:
            print(f"{verdict:10}  {mutant}", flush=True)

    print(f"{'op':12}" + "".join(f"{name:>12}" for name in columns))
    for op, count in counts.items():
        print(f"{op:12}" + "".join(f"{count[name]:12}" for name in columns))
    for mutant in left:
        print(f"\n{mutant}\n    {mutant.reason or 'NOT EXPLAINED'}")
    for op, mutated in sorted(EQUIVALENT.keys() - {(mutant.op, mutant.mutated) for mutant in left}):
        print(f"\nEQUIVALENT explains what does not survive:  {op}:  {mutated}")
    totals = {name: sum(count[name] for count in counts.values()) for name in columns}
    print("\ntotals: " + ", ".join(f"{n} {name}" for name, n in totals.items()))
    return 1 if totals["surviving"] else 0


if __name__ == "__main__":
    sys.exit(main())
