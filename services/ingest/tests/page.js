// Runs the script of the page at "/" over the smallest DOM that it needs, for test_ingest_home.py.
// stdin: {page, answers: {"path?query": {status, text}}, key, clicks: [text of a button or job]}
// stdout: {message, bad, form, text, asked}
"use strict";
const { page, answers, key, clicks } = JSON.parse(require("fs").readFileSync(0, "utf8"));

class Node {
  constructor(tag, id) { Object.assign(this, { tag, id, children: [], dataset: {}, heard: {}, hidden: false, className: "", parent: null }); }
  get cells() { return this.children; }
  get firstChild() { return this.children[0]; }
  set textContent(text) { this.children = [String(text)]; }
  get textContent() { return this.hidden ? "" : this.children.map(c => c instanceof Node ? c.textContent : c).join(""); }
  append(...more) { for (const c of more) { if (c instanceof Node) c.parent = this; this.children.push(c); } }
  replaceChildren(...more) { this.children = []; this.append(...more); }
  insertBefore(one, before) { one.parent = this; this.children.splice(before ? this.children.indexOf(before) : this.children.length, 0, one); }
  after(one) { one.parent = this.parent; this.parent.children.splice(this.parent.children.indexOf(this) + 1, 0, one); }
  remove() { this.parent.children = this.parent.children.filter(c => c !== this); }
  setAttribute() {}
  addEventListener(what, f) { this.heard[what] = f; }
  all() { return this.children.filter(c => c instanceof Node).flatMap(c => [c, ...c.all()]); }
  querySelectorAll(query) { const [tag, cls] = query.split("."); return this.all().filter(c => c.tag === tag && (!cls || c.className === cls)); }
  querySelector(query) { return this.querySelectorAll(query)[0] || null; }
}

const ids = {}, table = new Node("table");
for (const [, tag, id] of page.matchAll(/<(\w+)[^>]* id="([^"]+)"/g)) ids[id] = new Node(tag, id);
table.append(ids.jobs);
if (ids.more) ids.more.append(new Node("button"), new Node("span"));
const kept = key === null ? {} : { "frond-key": key }, asked = [];
global.document = { getElementById: id => ids[id], createElement: tag => new Node(tag), querySelector: query => query === "table" ? table : null };
global.sessionStorage = { getItem: name => kept[name] ?? null, setItem: (name, value) => { kept[name] = value; } };
global.location = { hash: "", pathname: "/" };
global.setInterval = () => {};
global.fetch = async path => {
  asked.push(path);
  if (!answers[path]) throw new TypeError("nobody answers");
  return new Response(answers[path].text, { status: answers[path].status });
};
const settled = () => new Promise(resolve => setTimeout(resolve, 20));

(async () => {
  new Function(page.match(/<script>([\s\S]*)<\/script>/)[1])();
  await settled();
  for (const text of clicks) {
    const all = [...table.all(), ...Object.values(ids)];
    // a click on a job's name is one on its row
    const target = all.find(n => n.heard.click && (n.id === text || n.dataset.id === text));
    await target.heard.click({ preventDefault() {}, stopPropagation() {} });
    await settled();
  }
  console.log(JSON.stringify({
    message: ids.message.textContent, bad: ids.message.className === "bad", form: !ids["key-form"].hidden,
    more: ids.more ? ids.more.textContent : "", text: table.textContent, asked,
  }));
})();
