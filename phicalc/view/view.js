// Plays the frames that lie beside it as JSON, with 3Dmol.js. Made for phicalc/view/page.py.
"use strict";
(() => {
  const part = document.currentScript.parentElement;
  const [stage, button, slider, choice, scale, output, data] =
    [".stage", "button", "input", "select", ".scale", "output", "script"].map((each) =>
      part.querySelector(each));
  const unpack = (text) => text && new Float32Array(
    Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
  const frames = JSON.parse(data.textContent);
  frames.forEach((frame, number) => {
    frame.symbols ??= frames[number - 1].symbols;
    frame.positions = unpack(frame.positions);
    frame.charges = unpack(frame.charges);
  });

  // Cividis: its brightness rises all the way, so that the picture survives a grey printer.
  const stops = [[0, 34, 78], [42, 63, 109], [87, 93, 109], [125, 124, 120], [165, 156, 116],
    [210, 192, 96], [254, 232, 56]];
  const color = (fraction) => {
    const place = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[low].map((value, channel) =>
      Math.round(value + (place - low) * (stops[low + 1][channel] - value)));
    return `rgb(${mixed.join(",")})`;
  };
  const largest = frames.reduce((most, frame) =>
    (frame.charges ?? []).reduce((found, charge) => Math.max(found, Math.abs(charge)), most), 0);
  const signed = (charge) => (charge < 0 ? "−" : "+") + Math.abs(charge).toFixed(3);

  function drawScale() {
    const [low, canvas, high] = scale.children;
    const pen = canvas.getContext("2d");
    for (let x = 0; x < canvas.width; x++) {
      pen.fillStyle = color(x / (canvas.width - 1));
      pen.fillRect(x, 0, 1, canvas.height);
    }
    low.textContent = signed(-largest);
    high.textContent = `${signed(largest)} e`;
  }

  let viewer;
  try {
    viewer = $3Dmol.createViewer(stage, {backgroundColor: "white"});
  } catch (error) {
    viewer = undefined;
  }
  if (!viewer) {
    output.textContent = "This browser shows no 3D graphics (WebGL), so there is nothing to see.";
    return;
  }
  viewer.setViewStyle({style: "outline", color: "black", width: 0.04});

  function drawCell(vectors) {
    const corner = (bits) => [0, 1, 2].map((axis) =>
      vectors.reduce((sum, vector, number) => sum + (bits >> number & 1) * vector[axis], 0));
    const point = ([x, y, z]) => ({x, y, z});
    for (let bits = 0; bits < 8; bits++)
      for (let number = 0; number < 3; number++)
        if (!(bits >> number & 1) && vectors[number].some((value) => value !== 0))
          viewer.addLine({start: point(corner(bits)), end: point(corner(bits | 1 << number)),
            color: "#6a7078"});
  }

  let shown = 0;
  function draw() {
    const {symbols, positions, charges, cell, caption} = frames[shown];
    const lines = symbols.map((symbol, atom) =>
      [symbol, ...positions.subarray(3 * atom, 3 * atom + 3)].join(" "));
    viewer.removeAllModels();
    viewer.removeAllShapes();
    viewer.removeAllLabels();
    viewer.addModel([symbols.length, "", ...lines].join("\n"), "xyz");
    const colored = choice.value === "charges" && charges
      ? {colorfunc: (atom) => color(0.5 + charges[atom.serial] / (2 * largest || 1))}
      : {colorscheme: "Jmol"};
    viewer.setStyle({}, {sphere: {scale: 0.28, ...colored}, stick: {radius: 0.12, ...colored}});
    viewer.setHoverable({}, true, (atom) => {
      const charge = charges ? `: ${signed(charges[atom.serial])} e` : "";
      viewer.addLabel(`${atom.elem} ${atom.serial}${charge}`,
        {position: atom, fontSize: 13, backgroundOpacity: 0.75});
    }, () => viewer.removeAllLabels());
    if (cell) drawCell(cell);
    viewer.render();
    slider.value = shown;
    output.textContent = (frames.length > 1 ? `${shown + 1} of ${frames.length} · ` : "") + caption
      + (charges ? "" : " · no charges in this frame");
    scale.hidden = choice.value !== "charges" || !charges;
  }

  function fit() {
    viewer.zoomTo();
    // zoomTo() looks at the height alone, which is the longer side on a phone.
    viewer.zoom(1.25 * Math.min(1, stage.clientWidth / stage.clientHeight));
    viewer.render();
  }

  let clock;
  function play(on) {
    clearInterval(clock);
    clock = on ? setInterval(() => show((shown + 1) % frames.length), 100) : undefined;
    button.textContent = on ? "❚❚" : "▶";
  }
  function show(number) {
    const other = frames[number].symbols !== frames[shown].symbols;
    shown = number;
    draw();
    if (other) fit();
  }

  slider.max = frames.length - 1;
  button.hidden = slider.hidden = frames.length < 2;
  choice.value = largest ? "charges" : "elements";
  choice.parentElement.hidden = !largest;
  button.addEventListener("click", () => play(!clock));
  slider.addEventListener("input", () => show(Number(slider.value)));
  choice.addEventListener("change", draw);
  drawScale();
  draw();
  viewer.rotate(-25, "y");  // straight ahead a cell hides its depth
  viewer.rotate(15, "x");
  fit();
})();
