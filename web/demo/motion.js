// Rows that open and close smoothly. Heights change and nothing fades, so that text stays legible.

const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Animate an element from no height to its own.
 * @param {HTMLElement} element
 */
export function enter(element) {
  if (still.matches) return;
  const height = `${element.offsetHeight}px`;
  const clipped = { overflow: "clip" };
  element.animate([{ height: "0", ...clipped }, { height, ...clipped }], {
    duration: 220,
    easing: "ease-out",
  });
}

/**
 * Animate an element to no height, then remove it.
 * @param {HTMLElement} element
 */
export function leave(element) {
  if (still.matches || !element.offsetHeight) return element.remove();
  const height = `${element.offsetHeight}px`;
  element.inert = true;
  element.style.overflow = "clip";
  element
    .animate([{ height }, { height: "0" }], { duration: 220, easing: "ease-in", fill: "forwards" })
    .finished.finally(() => element.remove());
}

/**
 * Make an element flash.
 * @param {Element} element
 */
export function flash(element) {
  if (!still.matches) element.animate([{ backgroundColor: "var(--flash)" }, {}], 500);
}

/**
 * Keep a box scrolled to its end, where new rows appear, until the user scrolls elsewhere.
 * @param {HTMLElement} box
 * @param {HTMLElement} content
 * @returns {() => void} scrolls to its beginning, and stays there
 */
export function follow(box, content) {
  let following = true;
  let before = 0;
  const toEnd = () => {
    if (following) box.scrollTop = box.scrollHeight;
  };
  box.addEventListener("scroll", () => {
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    // Growth moves the end away, too; that is no scrolling.
    if (atEnd || box.scrollTop < before) following = atEnd;
    before = box.scrollTop;
  });
  new ResizeObserver(toEnd).observe(content);
  return () => {
    following = false;
    box.scrollTop = 0;
  };
}
