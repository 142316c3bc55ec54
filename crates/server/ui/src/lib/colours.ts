// Colours come from the style sheet's variables, so that canvases follow the theme.

export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Light blue to indigo, yellow to red: four steps each. */
export function ramps(palette: string): { normal: string[]; error: string[] } {
  const steps = [0, 1, 2, 3];
  return {
    normal: steps.map((i) => colour(`--hit-${palette}-${i}`)),
    error: steps.map((i) => colour(`--err-${palette}-${i}`)),
  };
}
