// Shows the report's state as it changes, without a reload.
"use strict";

(() => {
  const state = document.getElementById("state");
  if (!state || !state.dataset.report) return;

  const finished = ["done", "failed"];
  let wait = 400;

  const duration = (seconds) =>
    seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min`;

  const figure = (name, value) => (name === "reading_seconds" ? duration(value) : value.toLocaleString("en-GB"));

  const cell = (text, className) => {
    const made = document.createElement("td");
    made.textContent = text;
    if (className) made.className = className;
    else made.dir = "auto";
    return made;
  };

  const show = (report) => {
    if (state.textContent !== report.state) {
      state.textContent = report.state;
      state.className = `state ${report.state}`;
    }
    if (report.error) {
      const problem = document.getElementById("problem");
      problem.textContent = report.error;
      problem.hidden = false;
    }
    if (report.result) {
      for (const place of document.querySelectorAll("[data-figure]")) {
        place.textContent = figure(place.dataset.figure, report.result[place.dataset.figure]);
      }
      const rows = report.result.frequent_words.map((item) => {
        const row = document.createElement("tr");
        row.append(cell(item.word), cell(String(item.count), "number"));
        return row;
      });
      document.getElementById("words").replaceChildren(...rows);
      document.getElementById("result").hidden = false;
    }
  };

  const poll = async () => {
    try {
      const response = await fetch(state.dataset.report, { headers: { Accept: "application/json" } });
      if (response.status === 404) return;
      if (response.ok) {
        const report = await response.json();
        show(report);
        if (finished.includes(report.state)) return;
      }
    } catch {
      // the network failed: the next turn tries again
    }
    wait = Math.min(wait * 1.3, 5000);
    setTimeout(poll, wait);
  };

  poll();
})();
