"""The recipe: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import copy
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.base.text import nearest
from ragtune.recipe.keys import all_keys, describe_key, field_of
from ragtune.recipe.load import load_recipe, save
from ragtune.recipe.schema import Recipe
from ragtune.recipe.starter import STARTER, commented

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml")
    if not path.name.endswith((".corpus.yaml", "skypilot.yaml"))
)

SMALL = """\
name: small
model:
  id: some/model
data:
  train: train.jsonl
  eval: eval.jsonl
prompt:
  preset: english
train:
  steps: 5
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, "utf-8")
    return path


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return path


def refusal(source: Any, *overrides: str) -> str:
    """What the user is told, with the recipe's folder left out."""
    with pytest.raises(UsageError) as raised:
        load_recipe(source, list(overrides))
    folder = f"{source.parent}/" if isinstance(source, Path) else "\0"
    return raised.value.message.replace(folder, "")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_there_are_shipped_recipes() -> None:
    assert {"aio-swallow-7b", "aio-swallow-7b-t4", "quickstart"} <= {p.stem for p in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_resolved_recipe_is_a_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    save(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_resolved_recipe_holds_every_key(small: Path, tmp_path: Path) -> None:
    save(load_recipe(small), tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text("utf-8")
    for key in all_keys():
        assert f"{key.rpartition('.')[2]}:" in text


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
numbers = st.from_regex(r"[0-9]{1,3}(\.[0-9])?e[+-]?[0-9]{1,2}", fullmatch=True)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(
    system=texts | numbers,
    revision=texts | numbers,
    rate=st.floats(1e-9, 10),
    steps=st.integers(1, 10**6),
)
def test_saving_and_loading_changes_nothing(
    tmp_path: Path, system: str, revision: str, rate: float, steps: int
) -> None:
    values = copy.deepcopy(STARTER)
    values["model"]["revision"] = revision
    values["prompt"]["system"] = system
    values["train"].update(learning_rate=rate, steps=steps)
    recipe = load_recipe(values)
    assert recipe.prompt.system == system
    save(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert load_recipe(recipe) == recipe


def test_a_mapping_is_left_as_it_was() -> None:
    values = copy.deepcopy(STARTER)
    load_recipe(values, ["train.steps=3", "lora.dropout=0"])
    assert values == STARTER


# What is refused.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "steps: 5",
            "steps: 5\n  learning_rat: 1.0e-4",
            "small.yaml:11: unknown key train.learning_rat. Did you mean train.learning_rate?",
        ),
        ("train:\n  steps", "trian:\n  steps", "small.yaml:9: unknown key trian. Did you mean train?"),
        ("name:", "seeds: 1\nname:", "small.yaml:1: unknown key seeds. Did you mean seed?"),
        (
            "name:",
            "learning_rate: 0.1\nname:",
            "small.yaml:1: unknown key learning_rate. Did you mean train.learning_rate?",
        ),
        ("name:", "batch_size: 8\nname:", "unknown key batch_size. Did you mean train.batch_size?"),
        ("name:", "xyzzy: 1\nname:", "small.yaml:1: unknown key xyzzy."),
        ("  id: some/model", "  dtype: auto", "small.yaml:2: model.id is missing (Hub id, folder,"),
        ("train:\n  steps: 5\n", "", "small.yaml: train is missing (How the adapter is trained), such as train: {steps: 100"),
        (
            "steps: 5",
            "steps: many",
            "small.yaml:10: train.steps = 'many': input should be a valid integer or null (optimizer steps; give this or epochs).",
        ),
        ("steps: 5", "steps: true", "train.steps = True: input should be a valid integer or null ("),
        ("steps: 5", "steps: 5.0", "train.steps = 5.0: input should be a valid integer or null ("),
        ("steps: 5", "steps: '5'", "train.steps = '5': input should be a valid integer or null ("),
        ("steps: 5", "steps: 0", "train.steps = 0: input should be greater than or equal to 1"),
        ("steps: 5", "epochs: true", "train.epochs = True: input should be a valid number or null ("),
        ("steps: 5", "epochs: .inf", "train.epochs = inf: input should be a finite number or null ("),
        ("name: small", "seed: -1\nname: small", "small.yaml:1: seed = -1: input should be greater"),
        (
            "name: small",
            "name: 7",
            "small.yaml:1: name = 7: input should be a valid string (in quotes) (names the run",
        ),
        ("name: small", "name: a/b", "small.yaml:1: name = 'a/b' has another form than wanted: names the run dir"),
        ("name: small", "name: small\npublish: {repo: model}", "publish.repo = 'model' has another form than wanted: owner/name on"),
        ("name: small", "name: small\nlora: {target_modules: q_proj}", "should be a valid list, such as [q_proj] ("),
        ("name: small", "name: ..", "small.yaml:1: name = '..' has another form than wanted"),
        ("name:", "format: 2\nname:", "small.yaml:1: format = 2: input should be 1 (version of this"),
        (
            "id: some/model",
            "id: m\n  quantization: none",
            "model.quantization = 'none': input should be 'nf4' or null (nf4: frozen weights",
        ),
        (
            "steps: 5",
            "steps: 5\n  samples_per_row: all",
            "small.yaml:11: train.samples_per_row = 'all': input should be 'auto' or a valid integer (samples packed into one row;",
        ),
        (
            "steps: 5",
            "steps: 5\n  samples_per_row: 0",
            "train.samples_per_row = 0: input should be 'auto' or greater than or equal to 1 (",
        ),
        (
            "steps: 5",
            "steps: 5\n  recompute: 1",
            "train.recompute = 1: input should be 'auto' or a valid boolean (recompute activations",
        ),
        (
            "train:\n",
            "lora:\n  target_modules: [q_proj, 1, 2]\ntrain:\n",
            "small.yaml:10: lora.target_modules = 1: input should be a valid string (in quotes) (",
        ),
        ("train:\n", "lora: 4\ntrain:\n", "small.yaml:9: lora = 4: a section holds `key: value` lines."),
        ("preset: english", "system: Hi", "small.yaml:7: prompt: give either preset or template."),
        ("  train: train.jsonl\n", "", "data: train must be given, unless source is aio."),
        ("steps: 5", "steps: 5\n  epochs: 1", "small.yaml:9: train: give either steps or epochs."),
        ("name: small", "name: small\nevaluate: {engine: openai, endpoint: 'http://a', copy: true}",
         "small.yaml:2: evaluate: copy and refuse_below need engine: local: a server writes freely"),
        ("name: small", "name: small\nevaluate: {refuse_below: 0.5}",
         "small.yaml: evaluate.refuse_below needs data.refusal, which is answered then."),
        ("preset: english", "preset: english\n  citations: true\nevaluate: {copy: true}",
         "small.yaml: evaluate.copy names each answer's passage, and can't write the numbers of prompt.citations."),
        ("name: small", "name: small\nevaluate: {orders: 4}",
         "small.yaml: evaluate.orders: 4 needs as many passages, and data.max_passages is 3."),
        ("preset: english", "preset: english\n  citations: true\nevaluate: {orders: 2}",
         "small.yaml: evaluate.orders counts answers of one text, which prompt.citations and prompt.quote make"),
        ("preset: english", "preset: english\n  quote: true\nevaluate: {orders: 2}",
         "small.yaml: evaluate.orders counts answers of one text, which prompt.citations and prompt.quote make"),
        ("name: small", "name: small\nevaluate: {orders: 0}", "evaluate.orders = 0: input should be greater"),
        ("prompt:\n", "  refusal: 'not said [1].'\nprompt:\n  citations: true\n",
         "data.refusal ends in a number in brackets"),
        ("steps: 5", "steps: 5\n  keep: best", "small.yaml:9: train: keep: best needs eval_every."),
        ("name: small", "1: 2\nname: small", "small.yaml:1: 1 = 1: keys should be strings"),
        ("preset: english", "preset: english\n  preset: aio", "small.yaml:9: prompt.preset is given twice"),
        ("train:\n", "name: other\ntrain:\n", "small.yaml:9: name is given twice (first at small.yaml:1)."),
        ("name: small", "name: 'small", "small.yaml:"),
        ("  preset", "\tpreset", "small.yaml:8: not valid YAML: found character '\\t' that cannot start"),
        ("name: small", "name: !!python/name:os.system", "small.yaml:1: not valid YAML: could not determ"),
        ("name: small", "name: small\n---\nb: 1", "small.yaml:2: not valid YAML"),
        ("name: small", "name: &a [*a]", "small.yaml:1: not valid YAML: a recipe takes no alias"),
        ("name: small", "name: \x00", "small.yaml: not valid YAML: unacceptable character #x0000"),
    ],
)  # fmt: skip
def test_refusal_names_place_key_and_meaning(small: Path, old: str, new: str, message: str) -> None:
    assert message in refusal(changed(small, old, new))


def test_one_line_a_key_and_all_problems_at_once(small: Path) -> None:
    changed(small, "steps: 5", "steps: x\n  samples_per_row: [1]\n  recompute: 3\n  warmpu: 1")
    changed(small, "name: small", "nam: small")
    lines = refusal(small, "data.max_passages=0").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "small.yaml", "'data.max_passages=0'",
        "small.yaml:10", "small.yaml:11", "small.yaml:12", "small.yaml:13", "small.yaml:1",
    ]  # fmt: skip


def test_a_long_wrong_value_is_cut(small: Path) -> None:
    message = refusal(changed(small, "steps: 5", f"steps: {'x' * 500}"))
    assert f"'{'x' * 58}…: input" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "this is empty"), ("# nothing\n", "this is empty"), ("- a\n", "this is list"), ("5\n", "this is int")],
)  # fmt: skip
def test_a_recipe_is_a_mapping(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, "utf-8")
    assert f"a recipe is a mapping (name, model, data, …); {message}." in refusal(path)


def test_a_missing_recipe_names_the_nearest(small: Path, tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "smal.yaml")
        == "Recipe smal.yaml does not exist. Did you mean small.yaml?"
    )
    assert refusal(tmp_path / "zzz.yaml") == "Recipe zzz.yaml does not exist."
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "recipe.yaml").touch()
    assert refusal(tmp_path / "fist") == "fist does not exist. Did you mean first?"
    assert refusal(tmp_path / "no" / "a.yaml") == "Recipe a.yaml does not exist."


def test_a_folder_and_other_encodings_are_refused(tmp_path: Path) -> None:
    assert "is a folder without a recipe.yaml" in refusal(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_bytes("name: 東京".encode("shift_jis"))
    assert "can't be read: 'utf-8' codec" in refusal(path)


def test_a_byte_order_mark_is_accepted(small: Path) -> None:
    small.write_bytes(b"\xef\xbb\xbf" + small.read_bytes())
    assert load_recipe(small).name == "small"


def test_a_section_whose_keys_are_commented_out_has_its_defaults(small: Path) -> None:
    changed(small, "train:\n", "lora:\n  # rank: 4\ntrain:\n")
    assert load_recipe(small).lora.rank == 128
    assert load_recipe(small, ["lora.rank=4"]).lora.rank == 4


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "5.0e-4", ".5e-3", "0.0005"])
def test_a_learning_rate_may_be_written_with_an_exponent(small: Path, text: str) -> None:
    assert load_recipe(small, [f"train.learning_rate={text}"]).train.learning_rate == 5e-4
    changed(small, "steps: 5", f"steps: 5\n  learning_rate: {text}")
    assert load_recipe(small).train.learning_rate == 5e-4


# Overrides.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "'train.steps' is no override."),
        ("=5", "'=5' is no override."),
        ("train.=5", "'train.=5' is no override."),
        ("name.x=5", "'name.x=5': name is not a section."),
        ("train.learning_rat=1", "'train.learning_rat=1': unknown key train.learning_rat. Did you mean train.le"),
        ("trian.steps=1", "'trian.steps=1': unknown key trian. Did you mean train?"),
        ("stesp=1", "'stesp=1': unknown key stesp. Did you mean train.steps?"),
        ("train.steps=many", "'train.steps=many': train.steps = 'many': input should be a valid integer"),
        ("train.steps=", "small.yaml:9: train: give either steps or epochs."),
    ],
)  # fmt: skip
def test_a_wrong_override_is_quoted(small: Path, override: str, message: str) -> None:
    assert message in refusal(small, override)


@pytest.mark.parametrize(
    "override",
    [
        "prompt.system=a\udcffb",
        "prompt.template_arguments={x\udc00: 1}",
        "data.fields={a: ['b\ud800']}",
    ],
)
def test_what_is_no_text_is_refused(small: Path, override: str) -> None:
    with pytest.raises(UsageError, match="bytes that are no UTF-8") as error:
        load_recipe(small, [override])
    str(error.value).encode()  # it can be shown


def test_an_override_replaces_what_it_excludes(small: Path) -> None:
    train = load_recipe(small, ["train.epochs=2"]).train
    assert (train.steps, train.epochs) == (None, 2)
    prompt = load_recipe(small, ["prompt.template={{ question }}"]).prompt
    assert (prompt.preset, prompt.template) == (None, "{{ question }}")
    resolved = load_recipe(load_recipe(small), ["train.epochs=2"]).train
    assert (resolved.steps, resolved.epochs) == (None, 2)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.revision=1234567", "1234567"),
        ("model.revision=12e4567", "12e4567"),
        ("model.revision='007'", "007"),
        ("model.revision=null", None),
        ("prompt.system=Answer: briefly", "Answer: briefly"),
        ("prompt.system=yes", "yes"),
        ("prompt.system={{ x", "{{ x"),
        ("evaluate.limit=null", None),
        ("publish.private=false", False),
        ("lora.target_modules=[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("train.samples_per_row=auto", "auto"),
        (" train.steps = 7", 7),
    ],
)
def test_an_override_has_the_type_of_its_key(small: Path, override: str, value: object) -> None:
    section, _, key = override.partition("=")[0].strip().partition(".")
    assert getattr(getattr(load_recipe(small, [override]), section), key) == value


# What the fields say about themselves.


def test_the_starter_is_valid_yaml_and_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(commented(Recipe, STARTER), "utf-8")
    assert load_recipe(path) == load_recipe(STARTER)


def test_the_starter_stays_valid_with_every_section_uncommented(tmp_path: Path) -> None:
    text = commented(Recipe, STARTER).splitlines()
    keys = {k.rpartition(".")[2] for k in all_keys()} - {"epochs", "template"}
    uncommented = [
        line.replace("# ", "", 1)
        if line.strip(" #").partition(":")[0] in keys and line[0] == " "
        else line
        for line in text
        if line and "null" not in line
    ]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(uncommented), "utf-8")
    assert load_recipe(path) == load_recipe(STARTER)


def test_the_schema_describes_every_key() -> None:
    schema = Recipe.model_json_schema()
    for key in all_keys():
        part = schema
        for name in key.split("."):
            part = part["properties"][name]
            own = part.get("description")
            if "$ref" in part:
                part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        assert own or part["description"], key
        assert describe_key(key), key


def test_every_key_has_a_field_and_no_other_has() -> None:
    assert all(field_of(key) for key in all_keys())
    assert not any(field_of(key) for key in ("x", "x.y", "name.y", "train.x", "a.train.steps"))
    assert describe_key("train.x") == "see `ragtune schema`"


@given(st.sampled_from(all_keys()), st.data())
def test_a_key_with_one_letter_too_many_is_recognised(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key)))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    wrong = key[:at] + letter + key[at:]
    if len(key) > 4 and wrong not in all_keys():
        assert nearest(wrong, all_keys())


def test_template_arguments_are_values_of_json(small: Path) -> None:
    changes = ["prompt.template_arguments.enable_thinking=false", "prompt.template_arguments.n=2"]
    prompt = load_recipe(small, changes).prompt
    assert prompt.template_arguments == {"enable_thinking": False, "n": 2}
    with pytest.raises(UsageError, match=r"prompt\.template_arguments = \[1\]: input should be"):
        load_recipe(small, ["prompt.template_arguments.n=[1]"])


def test_a_byte_order_mark_before_a_recipe_is_no_part_of_it(small: Path) -> None:
    wanted = load_recipe(small)
    small.write_text(small.read_text("utf-8"), "utf-8-sig")
    assert load_recipe(small) == wanted
