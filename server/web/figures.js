// Figures as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (number) => whole.format(number);

/** 0 ms, 0.04 ms, 3.2 ms, 412 ms, 1.84 s */
export function duration(ms) {
  if (ms >= 999.5) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 9.95) return `${whole.format(ms)} ms`;
  if (ms === 0) return "0 ms";
  if (ms >= 0.095) return `${ms.toFixed(1)} ms`;
  return `${ms.toFixed(2)} ms`;
}

/** 0 B, 812 B, 3.4 kB, 27 MB, 1.3 GB */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let figure = bytes;
  let unit = 0;
  while (figure >= 999.5 && unit < units.length - 1) {
    figure /= 1000;
    unit++;
  }
  return `${unit === 0 || figure >= 9.95 ? Math.round(figure) : figure.toFixed(1)} ${units[unit]}`;
}

/** 1 file, 1,240 files */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
