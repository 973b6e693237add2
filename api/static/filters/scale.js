// A slider's way along values that are spread unevenly: equal steps pass equally many listings.

const STEPS_EACH = 5; // between two quantiles
const DAY_S = 86_400;

/** The scale of an attribute: its last position, the value at a position, the position of a value. */
export function scaleOf({ type, quantiles }) {
  const last = STEPS_EACH * (quantiles.length - 1);
  const [lowest, highest] = [quantiles[0], quantiles.at(-1)];
  const least = leastStep(type, quantiles);

  function valueAt(position) {
    if (position >= last) return highest;
    const from = Math.min(Math.floor(position / STEPS_EACH), quantiles.length - 2);
    const step = (quantiles[from + 1] - quantiles[from]) / STEPS_EACH;
    const exact = quantiles[from] + step * (position - STEPS_EACH * from);
    // As round as it may be without two positions being one.
    const unit = Math.max(least, step > 0 ? 10 ** Math.floor(Math.log10(step)) : 0);
    const rounded = unit ? Number((Math.round(exact / unit) * unit).toPrecision(12)) : exact;
    return Math.min(highest, Math.max(lowest, rounded));
  }

  function positionOf(value) {
    if (value <= lowest) return 0;
    if (value >= highest) return last;
    const above = quantiles.findIndex((quantile) => quantile > value);
    const share = (value - quantiles[above - 1]) / (quantiles[above] - quantiles[above - 1]);
    return Math.round(STEPS_EACH * (above - 1 + share));
  }

  return { last, valueAt, positionOf };
}

function leastStep(type, quantiles) {
  if (type === "time") return DAY_S;
  const nWhole = quantiles.filter(Number.isInteger).length;
  if (2 * nWhole > quantiles.length) return 1; // those of whole numbers may lie between two of them
  return type === "price" ? 0.01 : 0;
}
