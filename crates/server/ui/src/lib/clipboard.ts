// Copying. Only a page from this machine or over TLS gets the browser's clipboard; elsewhere a selection is copied.

export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement('textarea');
    field.value = text;
    field.className = 'visually-hidden';
    const before = document.activeElement;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
    if (before instanceof HTMLElement) before.focus();
  }
}

/** The command that gets the same data in a shell. The token stays where it is: in `$WHATAP_TOKEN`. */
export function curl(url: string): string {
  return `curl -sS -H "Authorization: Bearer $WHATAP_TOKEN" '${url.replaceAll("'", '%27')}'`;
}
