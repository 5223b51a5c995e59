const chosen = document.getElementById("chosen");
const show = () => document.querySelectorAll(".chosen").forEach(e => e.textContent = chosen.value);
chosen.addEventListener("change", show);
const cinema = document.getElementById("cinema");
const film = cinema.querySelector("video");
for (const link of document.querySelectorAll(".film a")) {
  link.addEventListener("click", event => {
    event.preventDefault();
    document.getElementById("film-title").textContent = `Skill ${link.dataset.skill}`;
    film.src = link.getAttribute("href");
    cinema.showModal();
    film.play().catch(() => {});  // the viewer may have forbidden it; the controls are there
  });
}
cinema.addEventListener("close", () => film.pause());

// Highlights a skill wherever the page shows it, and describes it next to the paths.
const all = selector => [...document.querySelectorAll(selector)];
const now = document.getElementById("now");
const nowFilm = now.querySelector("video");
const chosenPath = document.querySelector(".chosen-path");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let highlighted, timer;

function describe(skill) {
  const cells = all(`tr[data-skill="${skill}"] [data-name]`);
  now.querySelector("h3").textContent = `Skill ${skill}`;
  for (const cell of cells) {
    const place = now.querySelector(`dd[data-name="${cell.dataset.name}"]`);
    if (place) place.textContent = cell.textContent || "none";
  }
  if (!nowFilm) return;
  const link = document.querySelector(`.film a[data-skill="${skill}"]`);
  nowFilm.hidden = !link;
  if (!link) return nowFilm.pause();
  nowFilm.poster = link.querySelector("img").getAttribute("src");
  nowFilm.src = link.getAttribute("href");
  if (!calm.matches) nowFilm.play().catch(() => {});
}

function highlight(skill) {
  if (skill === highlighted) return;
  highlighted = skill;
  all(".active").forEach(each => each.classList.remove("active"));
  document.body.classList.toggle("choosing", skill !== undefined);
  clearTimeout(timer);
  if (skill === undefined) return chosenPath.removeAttribute("href");
  all(`[data-skill="${skill}"]`).forEach(each => each.classList.add("active"));
  const line = document.querySelector(`.lines [data-skill="${skill}"]`);
  chosenPath.setAttribute("href", line.getAttribute("href"));
  chosenPath.style.setProperty("--color", line.classList.contains("rest") ? "" : line.style.getPropertyValue("--color"));
  timer = setTimeout(describe, 100, skill);  // not each one that the pointer passes on its way
}

for (const event of ["pointerover", "focusin"]) {
  document.addEventListener(event, ({ target }) => {
    if (!target.closest("#now")) highlight(target.closest("[data-skill]")?.dataset.skill);
  });
}
