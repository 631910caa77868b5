// Progressive: without this the page still shows everything except the slider's earlier rounds.
const data = JSON.parse(document.getElementById("page-data").textContent);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Rounds: one crosshair in all charts.
const slider = document.getElementById("round"), readout = document.getElementById("round-out");
if (slider) {
  const plots = [...document.querySelectorAll(".plot[data-rounds]")], last = data.rounds.length;
  const crosses = plots.map((plot) => plot.appendChild(Object.assign(document.createElement("span"), { className: "cross" })));
  const widest = Math.max(2, ...plots.map((plot) => +[...plot.querySelectorAll(".x")].pop().textContent));
  const show = (round) => {
    slider.value = round;
    readout.textContent = data.rounds[round - 1];
    slider.setAttribute("aria-valuetext", data.rounds[round - 1]);
    crosses.forEach((cross) => (cross.style.left = (100 * (round - 1)) / (widest - 1) + "%"));
  };
  slider.addEventListener("input", () => show(+slider.value));
  plots.forEach((plot) => plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show(clamp(Math.round(((event.clientX - box.left) / box.width) * (widest - 1)) + 1, 1, last));
  }));
  show(last);
}

// Pictures: predictions of earlier rounds are maps of class ids, coloured here.
const past = document.getElementById("picture-round"), told = document.getElementById("picture-out");
if (past) {
  const figures = [...document.querySelectorAll("#pictures figure[data-frame]")];
  const newest = figures.map((figure) => ({
    prediction: figure.querySelector(".is-prediction").src, wrong: figure.querySelector(".is-wrong").src,
    share: figure.querySelector(".share").textContent }));
  const pixels = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const painted = (width, height, colour) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d"), out = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const [r, g, b] = colour(i);
      out.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(out, 0, 0);
    return canvas.toDataURL();
  };
  const critical = new Set(data.critical);
  let wanted = 0;
  const showRound = async (at) => {
    const turn = ++wanted, round = data.frames[0].rounds[at][0], isNewest = at === data.frames[0].rounds.length - 1;
    told.textContent = "round " + round;
    past.setAttribute("aria-valuetext", "round " + round);
    await Promise.all(figures.map(async (figure, k) => {
      const prediction = figure.querySelector(".is-prediction"), wrong = figure.querySelector(".is-wrong");
      figure.querySelectorAll(".newest").forEach((each) => (each.hidden = !isNewest));
      if (isNewest) {
        prediction.src = newest[k].prediction; wrong.src = newest[k].wrong;
        figure.querySelector(".share").textContent = newest[k].share;
        return;
      }
      const webp = "data:image/webp;base64,";
      const [ids, truth, photo] = await Promise.all([
        pixels(webp + data.frames[k].rounds[at][1]), pixels(webp + data.frames[k].truth),
        pixels(figure.querySelector(".is-image").src)]);
      if (turn !== wanted) return;
      prediction.src = painted(ids.width, ids.height, (i) => data.palette[ids.data[4 * i]] || [0, 0, 0]);
      wrong.src = painted(ids.width, ids.height, (i) => {
        const is = truth.data[4 * i];
        if (is !== 255 && is !== ids.data[4 * i]) return critical.has(is) ? [0, 60, 170] : [222, 116, 0];
        const grey = 170 + Math.round(((photo.data[4 * i] + photo.data[4 * i + 1] + photo.data[4 * i + 2]) / 765) * 80);
        return [grey, grey, grey];
      });
      const share = (100 * data.frames[k].rounds[at][2]).toFixed(1);
      figure.querySelector(".share").textContent = share + "\u202f% of pixels wrong";
      figure.dataset.round = round;
    }));
  };
  past.addEventListener("input", () => showRound(+past.value));
}

// The contents mark the current section.
const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  links.forEach((a) => a.removeAttribute("aria-current"));
  links.get(entry.target.id)?.setAttribute("aria-current", "true");
}), { rootMargin: "-10% 0px -80% 0px" });
document.querySelectorAll("section[id]").forEach((section) => seen.observe(section));
