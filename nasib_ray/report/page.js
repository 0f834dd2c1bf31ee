"use strict";
(function () {
  const source = document.getElementById("kernel-data");
  const slider = document.getElementById("epoch");
  if (!source || !slider) return;
  const data = JSON.parse(source.textContent);
  const told = document.getElementById("epoch-told");
  const rows = document.querySelector("#sizeless tbody");
  function show(number) {
    const epoch = data.epochs[number];
    told.textContent = "epoch " + epoch;
    for (const kind of Object.keys(data.maps)) {
      const maps = data.maps[kind][epoch];
      const most = Math.max(...maps.flat(2).filter((value) => value !== null).map(Math.abs), 0) || 1;
      const traces = maps.map((_, layer) => layer);
      const colours = { "coloraxis.cmin": kind === "alpha" ? -most : 0, "coloraxis.cmax": most };
      Plotly.update("map-" + kind, { z: maps }, colours, traces);
    }
    if (!rows) return;
    rows.replaceChildren(...data.sizeless[epoch].map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, column) => {
        const place = document.createElement("td");
        if (column !== 1) place.className = "number";
        place.textContent = cell === null ? "" : cell;
        row.append(place);
      });
      return row;
    }));
  }
  slider.addEventListener("input", () => show(Number(slider.value)));
  // A browser that reloads the page may keep the slider where it was.
  slider.value = slider.max;
})();
