// The three lines, for another page.

/** Have the button copy the lines. */
export function offerCopy() {
  const copy = /** @type {HTMLButtonElement} */ (document.querySelector("#copy"));
  const code = /** @type {HTMLElement} */ (document.querySelector("#code"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      copy.textContent = "Copied";
    } catch {
      // Without permission, or over plain HTTP from another machine: select the lines instead.
      getSelection()?.selectAllChildren(code);
      copy.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
}
