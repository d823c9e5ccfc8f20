"""Random JSON schemas, and families of hostile schemas, regexes and Lark grammars, for bench/schemas.py."""

import json
import random
from collections.abc import Callable

STRINGS = (
    {},
    {"minLength": 2, "maxLength": 5},
    {"maxLength": 0},
    {"pattern": "^[a-z]{1,4}$"},
    {"pattern": "x[0-9]+"},
    {"pattern": "^(ab|cd)*$", "maxLength": 6},
    {"pattern": '^[^"]{1,3}$'},
    {"pattern": r"^[\x00-\x1f]{1,2}$"},
    {"pattern": r"^\d\D\w\W\s\S.$"},
    {"pattern": r"^[\w.-]+@[^\s@]+\.[a-z]{2,}$"},
    {"pattern": r"^(a|\u0001)[\S\s]?$"},
    {"pattern": r"[^\D][^\W]"},
    {"pattern": r"a\x02"},
    {"format": "ipv4"},
    {"format": "uuid"},
    {"enum": ["yes", "no", 'quote " \\ /', "é😀", "line\nbreak"]},
)
NAMES = ("a", "b", "name", "größe", "with space", 'q"uote', "a/b", "~x", "tab\t", "\x01", "\x7f")
PATTERNS = ("^x_[a-z]+$", "^a$", "^(a|b)$", "^[ab]", "^", "e$", "^.{1,4}$", r"^\x01$", r"^\S*$", "^$")


def random_schema(chance: random.Random) -> dict:
    """Random schema of a few levels with all kinds of supported keywords."""
    definitions = {f"d{i}": sub_schema(chance, 1, 0) for i in range(2)}
    definitions["tree"] = {
        "type": "object",
        "properties": {"value": sub_schema(chance, 1, 0), "next": {"$ref": "#/$defs/tree"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    definitions["loop"] = loop(chance)
    return {**sub_schema(chance, 3, 3), "$defs": definitions}


def loop(chance: random.Random) -> dict:
    """Definition that holds itself, often without a way out."""
    own: dict = {"$ref": "#/$defs/loop"}
    inner = chance.choice(
        [own, {"anyOf": [own, {"type": "null"}]}, {"anyOf": [own]}, {"type": "array", "items": own}]
    )
    return chance.choice(
        [
            {"type": "object", "properties": {"n": inner}, "required": chance.choice([["n"], []])},
            {"type": "object", "additionalProperties": inner, "minProperties": chance.randint(0, 1)},
            {"type": "array", "items": inner, "minItems": chance.randint(0, 1)},
            {"type": "array", "prefixItems": [{"const": 1}, inner], "minItems": chance.randint(0, 2)},
            {"allOf": [{"type": "object", "properties": {"n": inner}}, {"required": ["n"]}]},
            {"patternProperties": {"^a$": inner}, "required": ["a"], "type": ["object", "array"]},
            {"type": "object", "properties": {"m": {"type": "object", "properties": {"n": inner}}}},
        ]
    )


def sub_schema(chance: random.Random, depth: int, references: int) -> dict:
    simple = [integer, number, string, literal, lambda c: {"type": c.choice(["boolean", "null"])}]
    if depth == 0:
        return chance.choice(simple)(chance)
    kind = chance.random()
    if kind < 0.3:
        return an_object(chance, depth, references)
    if kind < 0.5:
        return an_array(chance, depth, references)
    if kind < 0.6:
        return {"anyOf": [sub_schema(chance, depth - 1, references) for _ in range(chance.randint(1, 3))]}
    if kind < 0.65:
        options = [{"type": "integer"}, {"type": "string"}, an_array(chance, depth, references)]
        options += [{"type": "number", "minimum": 3}, {"type": "integer", "maximum": 2}, literal(chance)]
        options += [tagged(chance, "x"), tagged(chance, "y")]
        return {"oneOf": chance.sample(options, chance.randint(1, 3))}
    if kind < 0.7:
        return {"allOf": [{"type": "integer", "minimum": chance.randint(-9, 9)}, {"maximum": 50}]}
    if kind < 0.75:
        return {"type": chance.sample(["string", "integer", "null", "array", "object", "boolean"], 2)}
    if kind < 0.85 and references:
        return {"$ref": f"#/$defs/{chance.choice(['d0', 'd1', 'tree', 'loop'])}"}
    return chance.choice(simple)(chance)


def tagged(chance: random.Random, tag: str) -> dict:
    """Object that its property "kind" tells from others."""
    properties = {"kind": {"const": tag}, "value": integer(chance)}
    return {"type": "object", "properties": properties, "required": ["kind"]}


def an_object(chance: random.Random, depth: int, references: int) -> dict:
    names = chance.sample(NAMES, chance.randint(0, 4))
    schema = {
        "type": "object",
        "properties": {name: sub_schema(chance, depth - 1, references) for name in names},
        "required": [name for name in names if chance.random() < 0.5],
    }
    extra = chance.random()
    if extra < 0.4:
        schema["additionalProperties"] = extra < 0.1
    elif extra < 0.6:
        schema["additionalProperties"] = sub_schema(chance, depth - 1, references)
    elif extra < 0.8:
        schema["patternProperties"] = {chance.choice(PATTERNS): sub_schema(chance, depth - 1, references)}
        schema["additionalProperties"] = chance.random() < 0.3
    if extra > 0.9:
        schema["minProperties"] = 1
    return schema


def an_array(chance: random.Random, depth: int, references: int) -> dict:
    schema = {"type": "array", "items": sub_schema(chance, depth - 1, references)}
    low = chance.randint(0, 3)
    if chance.random() < 0.5:
        schema |= {"minItems": low, "maxItems": low + chance.randint(0, 3)}
    if chance.random() < 0.3:
        schema["prefixItems"] = [sub_schema(chance, depth - 1, references) for _ in range(2)]
    return schema


def integer(chance: random.Random) -> dict:
    low = chance.randint(-1000, 1000)
    bounds = [
        {},
        {"minimum": low},
        {"exclusiveMaximum": low},
        {"minimum": low, "maximum": low + chance.randint(0, 5000)},
        {"exclusiveMinimum": low, "maximum": low + chance.randint(1, 20)},
        {"multipleOf": chance.randint(1, 12)},
    ]
    return {"type": "integer", **chance.choice(bounds)}


def number(chance: random.Random) -> dict:
    low = chance.randint(-4000, 4000) / 8
    bounds = [
        {},
        {"minimum": low},
        {"exclusiveMaximum": low},
        {"exclusiveMinimum": low, "maximum": low + 1.5},
    ]
    return {"type": "number", **chance.choice(bounds)}


def string(chance: random.Random) -> dict:
    return {"type": "string", **chance.choice(STRINGS)}


def literal(chance: random.Random) -> dict:
    values = [0, -7, 1.5, True, None, "text", "", [1, "a", {}], {"k": [None], "z": 0.25}, "\x85\u2028"]
    if chance.random() < 0.05:
        values = ["\x00", "a\x1fb", ["\x7f"], {"k": "\x01"}]
    return {"const": chance.choice(values)} if chance.random() < 0.5 else {"enum": chance.sample(values, 3)}


def size(chance: random.Random, top: int) -> int:
    """Random size up to `top`, small sizes as often as large ones."""
    return int(top ** chance.random())


def schema(make: Callable[[random.Random], object]) -> Callable[[random.Random], dict]:
    """Family of schemas, passed as text, as clients do."""

    def family(chance: random.Random) -> dict:
        value = make(chance)
        return {"json": value if isinstance(value, str) else json.dumps(value)}

    return family


def bomb(chance: random.Random, keyword: str) -> dict:
    """Definitions of which each uses the next one twice."""
    depth = size(chance, 500)
    steps = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(depth)
    }
    return {"$defs": {**steps, f"d{depth}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def product(chance: random.Random, keyword: str) -> dict:
    """Intersection of choices, whose number of cases is their product."""
    width, length = size(chance, 8), size(chance, 40)
    choices = [
        {keyword: [{"type": "object", "properties": {f"k{i}": {"const": j}}} for j in range(width + 1)]}
        for i in range(length)
    ]
    return {"allOf": choices}


def patterns(chance: random.Random) -> str:
    n, m = size(chance, 2000), size(chance, 2000)
    return chance.choice(
        [
            f"^(a{{{n}}}){{{m}}}$",
            f"(a|b)*a(a|b){{{n}}}",
            f"^(.*a.{{{n}}}|.*b.{{{m}}})$",
            f"^((x{{{n}}}){{{m}}}){{{n}}}$",
            f"(\\p{{L}}{{1,{n}}}\\w?){{1,{m}}}",
            f"(.{{0,{n}}}a){{1,{m}}}",
            f"^(?:a?){{{n}}}a{{{n}}}$",
            f"(\\w+\\s?){{1,{n}}}",
            "(a+)+b",
            "(" * n + "a" + ")" * n,
            "|".join(f"(.*{i}.{{{i}}})" for i in range(n)),
            "[^\\x00-\\x{10ffff}]" * n,
            "((.*)*)*" * n,
            "(?=a)b",
            "\\p{L}" * n,
            "(",
            "\\",
            "[z-a]",
            "a{9999999999}",
            "\ud800" * n,
        ]
    )


def mutate(chance: random.Random) -> str:
    """Text of a valid schema with some characters changed, removed or doubled."""
    text = list(json.dumps(random_schema(chance)))
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(len(text))
        text[place] = chance.choice(["", text[place] * 2, chance.choice('{}[]",:0-e.\\u\x00\ud800'), "null"])
    return "".join(text)


def larks(chance: random.Random) -> str:
    n, m = size(chance, 3000), size(chance, 300)
    return chance.choice(
        [
            'start: start start | "a"',
            "start: start",
            f'start: s\ns: {"s " * (1 + n % 9)}| "a" | ""',
            f'start: a{{{n}}}\na: b{{{m}}}\nb: c{{{n}}}\nc: "x"',
            f'start: A\nA: B{{{n}}}\nB: C{{{m}}}\nC: "x"{{{n}}}',
            "start: " + "(" * m + '"a"' + ")" * m,
            "start: a0\n" + "".join(f"a{i}: a{i + 1} a{i + 1}\n" for i in range(m)) + f'a{m}: "x"',
            "start: A0\n" + "".join(f"A{i}: A{i + 1} A{i + 1}\n" for i in range(m)) + f'A{m}: "x"',
            "start: " + " | ".join(f'"{i}"' for i in range(n)),
            f"start: A\nA: /(.|\\n)*/ & ~/(?s:.*)aaa(?s:.*)/ & ~/(.*b.{{{m}}})/",
            f"start: A*\nA: ~(~(~/a.{{{m}}}/ & /.*b.{{{m}}}/) & /.*c.{{{m}}}/)",
            'start: %regex {"substring_chars": "' + "ab" * n + '"}',
            "start: x\nx: " + " ".join(['("a" | "b" | )'] * n),
            'start: e\ne: e "+" e | "(" e ")" | /[0-9]+/ | e e',
            "start: <[*]>*",
            "start: " + "(" * m + "/[a-z]/" + ")*" * m,
            f'start: (("a"{{0,{m}}}){{0,{n}}}){{0,{m}}}',
            '%ignore /[ab]*/\nstart: /a*/ /b*/ start | "c"',
            "start: /" + patterns(chance).replace("/", "") + "/",
            "start: A\nA: " + " & ".join(f"/(a|b)*a(a|b){{{i}}}/" for i in range(1, 2 + n % 30)),
            'start: a::0x0\na::_ : "x" a::incr(_) | "y"',
            'start: foo\nfoo[stop=""]: /.*/',
            "start: " + "x" * n,
            "\x00",
            "",
        ]
    )


FAMILIES: list[tuple[str, Callable[[random.Random], dict]]] = [
    ("nesting", schema(lambda c: '{"items":' * (n := size(c, 50_000)) + "{}" + "}" * n)),
    ("open brackets", schema(lambda c: "[" * size(c, 200_000))),
    ("maxItems", schema(lambda c: {"type": "array", "items": {}, "maxItems": size(c, 10**12)})),
    ("minItems", schema(lambda c: {"items": {"minItems": size(c, 10**9)}, "minItems": size(c, 10**9)})),
    (
        "length",
        schema(lambda c: {"type": "string", "minLength": size(c, 10**7), "maxLength": size(c, 10**9)}),
    ),
    ("pattern", schema(lambda c: {"type": "string", "pattern": patterns(c)})),
    ("pattern, length", schema(lambda c: {"pattern": patterns(c), "minLength": size(c, 10**4)})),
    ("patterns", schema(lambda c: {"allOf": [{"pattern": patterns(c)} for _ in range(size(c, 20))]})),
    ("any patterns", schema(lambda c: {"anyOf": [{"pattern": patterns(c)} for _ in range(size(c, 20))]})),
    ("enum", schema(lambda c: {"enum": [f"v{i:x}" for i in range(size(c, 10**5))]})),
    ("long enum", schema(lambda c: {"enum": ["x" * size(c, 10**6)]})),
    ("enum objects", schema(lambda c: {"enum": [{"a": [i]} for i in range(size(c, 20_000))]})),
    ("properties", schema(lambda c: {"properties": {f"p{i}": {} for i in range(size(c, 20_000))}})),
    (
        "patternProperties",
        schema(lambda c: {"patternProperties": {f"p{i}": {} for i in range(size(c, 2000))}}),
    ),
    ("anyOf", schema(lambda c: {"anyOf": [{"items": {"const": i}} for i in range(size(c, 10_000))]})),
    ("anyOf bomb", schema(lambda c: bomb(c, "anyOf"))),
    ("allOf bomb", schema(lambda c: bomb(c, "allOf"))),
    ("prefixItems bomb", schema(lambda c: bomb(c, "prefixItems"))),
    ("anyOf product", schema(lambda c: product(c, "anyOf"))),
    ("oneOf product", schema(lambda c: product(c, "oneOf"))),
    (
        "own reference",
        schema(lambda c: c.choice(['{"$ref":"#"}', '{"allOf":[{"$ref":"#"},{"type":"object"}]}'])),
    ),
    (
        "remote",
        schema(lambda c: {"$ref": c.choice(["http://localhost/x", "file:///etc/passwd", "//x", "#a"])}),
    ),
    ("multiples", schema(lambda c: {"allOf": [{"multipleOf": size(c, 10**9)} for _ in range(size(c, 8))]})),
    (
        "bounds",
        schema(lambda c: {"type": "number", "minimum": -(10.0 ** c.randint(-320, 308)), "maximum": 1e-300}),
    ),
    ("large", schema(lambda c: {"description": "x" * size(c, 10**7)})),
    ("contradiction", schema(lambda c: {"allOf": [sub_schema(c, 2, 0) for _ in range(4)]})),
    ("endless", schema(lambda c: {"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"})),
    ("mutated", schema(mutate)),
    ("mutated", schema(mutate)),
    ("keyword", schema(lambda c: {c.choice(["not", "if", "x-guidance", "uniqueItems", "\ud800"]): {}})),
    ("regex", lambda c: {"regex": patterns(c)}),
    ("regex", lambda c: {"regex": patterns(c)}),
    ("Lark", lambda c: {"grammar": larks(c)}),
    ("Lark", lambda c: {"grammar": larks(c)}),
    ("choice", lambda c: {"choice": tuple("y" * size(c, 100) + str(i) for i in range(size(c, 20_000)))}),
]
