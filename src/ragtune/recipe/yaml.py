"""YAML as recipes are written in: numbers as YAML 1.2 has them, and no aliases."""

from __future__ import annotations

import re

import yaml

from ragtune.base.screen.visible import visible

_LONGEST_NUMBER = 60


class _Loader(yaml.SafeLoader):
    """Reads 5e-4 as a number, as YAML 1.2 does; PyYAML's 1.1 wants 5.0e-4.

    Aliases are refused: a few lines of them stand for more values than any memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "a recipe takes no alias (*name)", mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call,no-any-return]


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader` would read as a number, such as a commit 12e4567."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # What can't be seen is escaped, which YAML does in quotes; some of it also breaks lines there.
    style = '"' if visible(value) != value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > _LONGEST_NUMBER:  # one of thousands of digits can't even be shown
        raise yaml.constructor.ConstructorError(None, None, "a number too long", node.start_mark)
    return loader.construct_yaml_int(node)  # type: ignore[no-untyped-call,no-any-return]


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)

for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str) -> tuple[yaml.Node | None, object]:
    """The node of a YAML document and its value. Raises YAMLError whatever is wrong with it."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    # What PyYAML raises for 2024-13-45, 0x_ and the like.
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def dump_yaml(value: object, *, in_line: bool = False) -> str:
    """A value as `parse_yaml` reads it; `in_line` as it stands behind a key."""
    text: str = yaml.dump(
        value,
        None,
        _Dumper,
        default_flow_style=in_line,
        width=10_000 if in_line else 100,
        allow_unicode=True,
        sort_keys=False,
    )
    text = visible(text)
    return text.removesuffix("...\n").strip() if in_line else text
