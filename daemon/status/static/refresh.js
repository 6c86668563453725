// Every fifteen seconds, while somebody looks: the same page again, without losing place, focus or what is unfolded.
"use strict";
setInterval(async () => {
  if (document.hidden) return;
  let text;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    text = await answer.text();
  } catch {
    const age = document.querySelector(".age");
    age.className = "age trouble";
    age.textContent = "The daemon does not answer; what is shown is old.";
    return;
  }
  const next = new DOMParser().parseFromString(text, "text/html");
  const open = [...document.querySelectorAll("figure:has(details[open])")].map((each) => each.id);
  const main = document.querySelector("main");
  if (main.contains(document.activeElement) || String(getSelection())) {
    document.querySelector(".age").replaceWith(next.querySelector(".age"));
    return;
  }
  for (const id of open) next.querySelector(`#${CSS.escape(id)} details`)?.setAttribute("open", "");
  document.title = next.title;
  for (const part of ["header", "main"]) document.querySelector(part).replaceWith(next.querySelector(part));
}, 15000);
