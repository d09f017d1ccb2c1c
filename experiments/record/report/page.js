"use strict";
// Without this script the page shows everything but values under the pointer and moving masks.
(() => {
  const drawn = (number) => (number === null ? "no number" : number.toLocaleString("en", { maximumSignificantDigits: 4 }));

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // Values under the pointer, and by arrow keys.
  function readable(plot) {
    const source = plot.querySelector("script.values");
    if (!source) return;
    const svg = plot.querySelector("svg"), tip = plot.querySelector(".tip");
    const data = JSON.parse(source.textContent), { box, x: [first, last] } = data;
    const frames = [...new Set(data.series.flatMap((each) => each.x))].sort((a, b) => a - b);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    let at = -1;

    function show(index) {
      at = Math.min(Math.max(index, 0), frames.length - 1);
      const frame = frames[at], place = box.left + ((box.right - box.left) * (frame - first)) / (last - first);
      cursor.setAttribute("d", `M${place},${box.top}V${box.bottom}`);
      if (!cursor.parentNode) svg.append(cursor);
      const lines = [element("b", { textContent: `frame ${frame.toLocaleString("en")}` })];
      for (const each of data.series) {
        const i = each.x.indexOf(frame);
        if (i < 0 || each.y[i] === null || document.body.classList.contains(`off${each.style}`)) continue;
        const interval = each.low[i] === null ? "" : ` [${drawn(each.low[i])}, ${drawn(each.high[i])}]`;
        const sample = element("i");
        const line = element("span", { className: `s${each.style}` }, sample, `${each.name}: ${drawn(each.y[i])}${interval}, n = ${each.n[i]}`);
        lines.push(line);
      }
      tip.replaceChildren(...lines);
      const scale = svg.clientWidth / svg.viewBox.baseVal.width, pixel = place * scale;
      const right = pixel + 16 + tip.offsetWidth > plot.clientWidth && pixel > tip.offsetWidth + 12;
      tip.style.left = `${right ? pixel - tip.offsetWidth - 12 : pixel + 12}px`;
      tip.style.top = `${box.top * scale}px`;
    }
    function hide() {
      tip.replaceChildren();
      cursor.remove();
      at = -1;
    }
    svg.addEventListener("pointermove", (event) => {
      const inside = svg.getBoundingClientRect(), scale = inside.width / svg.viewBox.baseVal.width;
      const place = (event.clientX - inside.left) / scale;
      const frame = first + ((last - first) * (place - box.left)) / (box.right - box.left);
      let best = 0;
      frames.forEach((each, i) => { if (Math.abs(each - frame) < Math.abs(frames[best] - frame)) best = i; });
      show(best);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: at + 1, ArrowLeft: at < 0 ? frames.length - 1 : at - 1, Home: 0, End: frames.length - 1 };
      if (event.key === "Escape") hide();
      if (!(event.key in steps)) return;
      event.preventDefault();
      show(steps[event.key]);
    });
  }

  // The entries of the legend hide and show runs.
  function switchable(entry) {
    const style = /s(\d)/.exec(entry.querySelector("svg").getAttribute("class"))[1];
    const button = element("button", { type: "button" }, ...entry.childNodes);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const off = document.body.classList.toggle(`off${style}`);
      button.setAttribute("aria-pressed", String(!off));
    });
    entry.replaceChildren(button);
  }

  // Masks in time: the grey of a weight says when it was born; what is not born yet is left out.
  const CIVIDIS = [[57, 72, 107], [87, 93, 109], [125, 124, 120], [188, 174, 108], [254, 232, 56]];

  function colour(share) {
    const place = share * (CIVIDIS.length - 1), i = Math.min(Math.floor(place), CIVIDIS.length - 2);
    return CIVIDIS[i].map((low, k) => low + (place - i) * (CIVIDIS[i + 1][k] - low));
  }

  function mask(figure) {
    const image = figure.querySelector("img"), last = Number(figure.dataset.last), oldest = Number(figure.dataset.oldest);
    const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const grey = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const picture = context.createImageData(canvas.width, canvas.height);
    const count = element("p", { className: "count" });
    image.replaceWith(canvas);
    canvas.after(count);
    return (frame) => {
      let there = 0;
      for (let i = 0; i < grey.length; i += 4) {
        const share = (grey[i] - oldest) / (255 - oldest), born = grey[i] >= oldest && share * last <= frame + 1e-6 * last;
        const [red, green, blue] = born ? colour(share) : [14, 16, 20];
        picture.data.set([red, green, blue, 255], i);
        there += born;
      }
      context.putImageData(picture, 0, 0);
      count.textContent = `${Math.round((400 * there) / grey.length)} % of the layer, born by then`;
    };
  }

  function animated(section) {
    const figures = [...section.querySelectorAll(".mask")];
    if (!figures.length) return;
    const shows = figures.map(mask), end = Math.max(...figures.map((each) => Number(each.dataset.last)));
    const slider = element("input", { type: "range", min: 0, max: 100, value: 100, id: "mask-time" });
    const label = element("label", { htmlFor: "mask-time", textContent: "Time" });
    const output = element("output", { htmlFor: "mask-time" }), play = element("button", { type: "button" });
    let timer = 0;
    function show() {
      const frame = (end * slider.value) / 100;
      for (const each of shows) each(frame);
      output.textContent = `frame ${Math.round(frame).toLocaleString("en")}`;
      slider.setAttribute("aria-valuetext", output.textContent);
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    }
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) >= 100) slider.value = 0;
      play.textContent = "Pause";
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (Number(slider.value) >= 100) stop();
      }, 80);
    });
    slider.addEventListener("input", show);
    stop();
    show();
    section.querySelector(".masks").prepend(element("div", { className: "controls" }, play, label, slider, output));
  }

  // A page that is watched loads anew when the runs have gone on, with what was open still open.
  function watch(shown) {
    const all = [...document.querySelectorAll("details")];
    const open = JSON.parse(sessionStorage.getItem("open") || "[]");
    for (const i of open) if (all[i]) all[i].open = true;
    setInterval(async () => {
      try {
        const now = await (await fetch("state")).text();
        if (now === shown) return;
        sessionStorage.setItem("open", JSON.stringify(all.flatMap((each, i) => (each.open ? [i] : []))));
        location.reload();
      } catch { /* the server is gone; what is shown stays */ }
    }, 3000);
  }

  document.querySelectorAll(".plot").forEach(readable);
  document.querySelectorAll(".legend li").forEach(switchable);
  addEventListener("load", () => animated(document.querySelector("#masks")));
  if (document.body.dataset.watched) watch(document.body.dataset.watched);
})();
