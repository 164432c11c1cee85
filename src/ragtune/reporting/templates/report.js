"use strict";
// Lists the answers of the page's JSON islands. Text of the data only ever becomes a text node.
(() => {
  const PAGE = 50; // rows drawn at a time
  const PRINTED = 20; // as report.css has it
  const CHUNK = 25; // rows in an island of details, as answers.py writes them
  const data = document.getElementById("rows");
  if (!data) return;

  const rows = JSON.parse(data.textContent);
  const chunks = Array.from(document.querySelectorAll("script.chunk"));
  const table = document.querySelector("table.answers");
  const tools = document.querySelector(".tools");
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const printed = document.getElementById("printed");
  const more = document.getElementById("more");
  const buttons = Array.from(tools.querySelectorAll("button"));
  const NAMES = { fixed: "fixed", broken: "broken", right: "right both times", wrong: "still wrong" };

  // Full-width letters, ligatures and capitals are found as their plain selves.
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const sought = rows.map((row) =>
    fold([row.question, ...row.answers, row.before ?? "", row.after ?? ""].join("\n")));
  const number = (value) => value.toLocaleString("en-US");

  let kind = "";
  let found = []; // the rows that the search and the filter leave

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children.flatMap(marked));
    return node;
  }

  // Between these two stand the names of characters that can't be seen (base/screen/visible.py).
  function marked(child) {
    if (typeof child !== "string" || !child.includes("\ue000")) return [child];
    return child.split(/[\ue000\ue001]/).map((text, i) => (i % 2 ? badge(text) : text));
  }

  function badge(text) {
    const title = "Can't be seen, or would change how the text around it looks";
    return Object.assign(document.createElement("bdi"), { className: "odd", title, textContent: text });
  }

  function texts(list) {
    return list.length
      ? list.map((text) => make("div", { dir: "auto" }, text))
      : [make("span", { className: "none", lang: "en" }, "no answer")];
  }

  function given(name, text, right) {
    const cell = make("td", { className: name.toLowerCase() });
    cell.dataset.label = name;
    cell.setAttribute("role", "cell");
    if (text === null) {
      cell.append(make("span", { className: "none", lang: "en" }, "not asked"));
      return cell;
    }
    const mark = make("span", { className: right ? "yes" : "no", lang: "en" }, right ? "✓" : "✗",
      make("span", { className: "spoken" }, right ? " right " : " wrong "));
    const said = text.trim() ? make("span", { className: "said", dir: "auto" }, text)
      : make("span", { className: "none", lang: "en" }, "(empty)");
    cell.append(mark, said);
    return cell;
  }

  function chips(row) {
    const names = row.outcome ? [[row.outcome, NAMES[row.outcome]]] : [];
    for (const name of ["refused", "unanswerable", "synthetic"]) {
      if (row.kinds.includes(name)) names.push([name, name]);
    }
    return names.map(([name, text]) => make("span", { className: `chip ${name}`, lang: "en" }, text));
  }

  const parsed = new Map();
  function details(index) {
    const chunk = Math.floor(index / CHUNK);
    if (!parsed.has(chunk)) parsed.set(chunk, JSON.parse(chunks[chunk].textContent));
    return parsed.get(chunk)[index % CHUNK];
  }

  function passage([title, pieces, place]) {
    const text = make("p", { dir: "auto" },
      ...pieces.map((piece, i) => (i % 2 ? make("mark", {}, piece) : piece)));
    const parts = title ? [make("b", { dir: "auto" }, title), text] : [text];
    if (place) parts.push(make("small", { dir: "auto" }, place));
    return make("div", { className: "passage" }, ...parts);
  }

  function opened(index) {
    const row = rows[index];
    const { passages, others, prompt } = details(index);
    const left = make("div", {});
    left.append(make("h4", { lang: "en" },
      passages.length === 1 ? "1 passage" : `${passages.length} passages`));
    left.append(...passages.map(passage));
    const facts = make("p", { className: "small", lang: "en" }, "qid ", make("bdi", {}, row.qid));
    if (others.length) {
      facts.append(make("br"), "Named in the record, not accepted here: ",
        ...others.flatMap((text, i) => [i ? " · " : "", make("bdi", {}, text)]));
    }
    left.append(facts);
    const parts = make("div", { className: "parts" }, left);
    if (prompt !== null) {
      const text = make("pre", { dir: "auto", tabIndex: 0 }, prompt);
      text.setAttribute("aria-label", "Prompt");
      text.setAttribute("role", "region");
      parts.append(make("div", {}, make("h4", { lang: "en" }, "Prompt, as the model read it"), text));
      parts.classList.add("two");
    }
    const cell = make("td", { colSpan: 4 }, parts);
    cell.setAttribute("role", "cell");
    return cell;
  }

  function toggle(body, index) {
    const button = body.querySelector("button");
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(open));
    body.classList.toggle("open", open);
    const detail = body.rows[1];
    if (open && !detail.cells.length) detail.append(opened(index));
    detail.hidden = !open;
  }

  function entry(index) {
    const row = rows[index];
    const id = `row-${index}`;
    const button = make("button", { type: "button", className: "question", dir: "auto" }, row.question);
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", id);
    const question = make("th", { scope: "row" }, button, ...chips(row));
    question.setAttribute("role", "rowheader");
    const accepted = make("td", { className: "accepted" }, ...texts(row.answers));
    accepted.dataset.label = "Accepted";
    accepted.setAttribute("role", "cell");
    const line = make("tr", {}, question, accepted,
      given("Before", row.before, row.right[0]), given("After", row.after, row.right[1]));
    const detail = make("tr", { id, className: "detail", hidden: true });
    const body = make("tbody", { className: row.outcome ?? "" }, line, detail);
    // On a phone the cells are laid out as blocks, which would end their being a table.
    for (const [node, role] of [[body, "rowgroup"], [line, "row"], [detail, "row"]]) {
      node.setAttribute("role", role);
    }
    if (row.lang) body.lang = row.lang;
    line.addEventListener("click", (event) => {
      if (event.target.closest("button") || !String(getSelection())) toggle(body, index);
    });
    return body;
  }

  function grow() {
    const start = table.tBodies.length;
    const part = document.createDocumentFragment();
    for (const index of found.slice(start, start + PAGE)) part.append(entry(index));
    table.append(part);
    const left = found.length - table.tBodies.length;
    more.hidden = left === 0;
    more.textContent = `Show ${number(Math.min(left, PAGE))} more of ${number(left)}`;
    return table.tBodies[start];
  }

  function draw() {
    const words = fold(search.value).split(/\s+/).filter(Boolean);
    const matching = [];
    sought.forEach((text, index) => {
      if (words.every((word) => text.includes(word))) matching.push(index);
    });
    for (const button of buttons) {
      const name = button.dataset.kind;
      const count = name ? matching.filter((i) => rows[i].kinds.includes(name)).length : matching.length;
      button.querySelector("b").textContent = number(count);
      button.setAttribute("aria-pressed", String(name === kind));
    }
    found = kind ? matching.filter((index) => rows[index].kinds.includes(kind)) : matching;
    while (table.tBodies.length) table.tBodies[0].remove();
    grow();
    table.hidden = found.length === 0;
    shown.textContent = found.length
      ? `${number(found.length)} of ${number(rows.length)} questions`
      : "No question is like that.";
    printed.textContent = found.length > PRINTED
      ? `The first ${PRINTED} of ${number(found.length)} answers are printed; the others are in the file.`
      : "";
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      kind = button.dataset.kind;
      draw();
    });
  }
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      search.value = "";
      draw();
    }
  });
  more.addEventListener("click", () => grow()?.querySelector("button").focus());
  table.setAttribute("role", "table");
  tools.hidden = false;
  draw();
})();
