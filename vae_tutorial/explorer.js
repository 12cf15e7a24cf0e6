/* Run by the picture of plots.explore when a page has loaded it: puts a frame on the picture and, beside it, one large
   image and two sliders. Where scripts are not run, the picture stays as it is. explore fills in the settings. */
const map = this, box = map.parentNode, {sides, start} = SETTINGS;
if (box.childElementCount == 1) {
  const add = (to, tag, style, rest) => to.appendChild(Object.assign(document.createElement(tag), rest || {},
    {style}));
  box.style.minHeight = "320px";
  const frame = add(box, "div", "position: absolute; box-sizing: border-box; pointer-events: none; " +
    "border: 3px solid #DDAA33");
  const panel = add(box, "div", "position: absolute; left: 100%; top: 0; width: 210px; margin-left: 24px");
  const view = add(panel, "div", "width: 192px; height: 192px; margin-bottom: 12px; image-rendering: pixelated");
  view.setAttribute("role", "img");
  view.style.backgroundImage = "url(" + map.src + ")";
  view.style.backgroundSize = sides.map(side => 100 * side.words.length + "%").join(" ");
  const at = side => side.upward ? side.words.length - 1 - side.slider.value : +side.slider.value;
  const show = () => {
    const places = sides.map(at), counts = sides.map(side => side.words.length);
    sides.forEach((side, k) => { side.label.textContent = side.name + " = " + side.words[places[k]]; });
    view.style.backgroundPosition = places.map((p, k) => 100 * p / Math.max(1, counts[k] - 1) + "%").join(" ");
    view.setAttribute("aria-label", sides.map(side => side.label.textContent).join(", "));
    const cell = [map.clientWidth / counts[0], map.clientHeight / counts[1]];
    ["left", "top"].forEach((edge, k) => { frame.style[edge] = cell[k] * places[k] + "px"; });
    ["width", "height"].forEach((size, k) => { frame.style[size] = cell[k] + "px"; });
  };
  const set = (side, place) => {
    const last = side.words.length - 1, p = Math.min(last, Math.max(0, place));
    side.slider.value = side.upward ? last - p : p;
  };
  sides.forEach((side, k) => {
    side.label = add(panel, "label", "display: block; font: 14px sans-serif");
    side.slider = add(panel, "input", "display: block; width: 192px; margin: 2px 0 10px",
      {type: "range", min: 0, max: side.words.length - 1, step: 1, oninput: show});
    side.slider.setAttribute("aria-label", side.name);
    set(side, start[k]);
  });
  const point = event => {
    const inside = [event.offsetX / map.clientWidth, event.offsetY / map.clientHeight];
    sides.forEach((side, k) => set(side, Math.floor(inside[k] * side.words.length)));
    show();
  };
  map.draggable = false;
  map.style.cursor = "crosshair";
  map.onpointerdown = point;
  map.onpointermove = event => { if (event.buttons) point(event); };
  show();
}
