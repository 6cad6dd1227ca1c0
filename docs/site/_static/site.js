// A browser may break a line between a formula and the full stop behind it: keep them together.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll("span.math")) {
    const text = formula.nextSibling;
    const mark = text instanceof Text && text.data.match(/^[.,:;?!)\]]+/);
    if (!mark) continue;
    const together = document.createElement("span");
    together.style.whiteSpace = "nowrap";
    formula.replaceWith(together);
    together.append(formula, mark[0]);
    text.data = text.data.slice(mark[0].length);
  }
});
