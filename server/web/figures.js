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
