// Files that the page hands to the browser.

/** Save a text as a file. */
export function download(text: string | Blob, name: string, type: string): void {
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(new Blob([text], { type })),
    download: name,
  });
  link.click();
  URL.revokeObjectURL(link.href);
}
