// The tree as the server describes it: its nodes, and their changes. Nothing here touches the page.

/**
 * A task, a nursery, or the tasks of a nursery that are not drawn (the name is their number).
 * @typedef {object} TreeNode
 * @property {number} id unique and constant
 * @property {number | null} [parent]
 * @property {"task" | "nursery" | "more"} kind
 * @property {string} name
 * @property {string} [waits_for] empty while it is running
 * @property {number} [deadline] milliseconds of the server's Unix time
 * @property {boolean} [cancelled]
 * @property {boolean} [shielded]
 */

/**
 * @typedef {object} Snapshot
 * @property {number} now
 * @property {TreeNode[]} nodes
 * @property {Record<string, unknown>} facts
 */

/**
 * @typedef {object} Change
 * @property {number} now
 * @property {TreeNode[]} put
 * @property {number[]} gone
 * @property {number[]} cancelled
 * @property {Record<string, unknown>} facts
 */

/**
 * What has changed.
 * @typedef {object} Difference
 * @property {TreeNode[]} put those that are new, changed or moved
 * @property {TreeNode[]} fresh the new ones among them
 * @property {TreeNode[]} gone
 * @property {Set<number>} cancelled the numbers of those gone that a cancellation had reached
 */

/** The present nodes, by their numbers. */
export class Picture {
  /** @type {Map<number, TreeNode>} */
  nodes = new Map();

  /**
   * Replace all nodes by a snapshot, and return the changes.
   * @param {TreeNode[]} nodes
   * @returns {Difference}
   */
  replace(nodes) {
    const now = new Set(nodes.map((node) => node.id));
    return this.change(nodes, [...this.nodes.keys()].filter((id) => !now.has(id)), []);
  }

  /**
   * Apply a change, and return it with the nodes that it refers to.
   * @param {TreeNode[]} put
   * @param {number[]} gone
   * @param {number[]} cancelled
   * @returns {Difference}
   */
  change(put, gone, cancelled) {
    const left = gone.flatMap((id) => this.nodes.get(id) ?? []);
    for (const id of gone) this.nodes.delete(id);
    const fresh = put.filter((node) => !this.nodes.has(node.id));
    for (const node of put) this.nodes.set(node.id, node);
    put.sort((a, b) => a.id - b.id);
    return { put, fresh, gone: left, cancelled: new Set(cancelled) };
  }

  /**
   * Yield a node's parent, its parent's parent, and so on.
   * @param {TreeNode} node
   * @returns {Generator<TreeNode>}
   */
  *above(node) {
    for (let at = this.parent(node); at; at = this.parent(at)) yield at;
  }

  /**
   * @param {TreeNode} node
   * @returns {TreeNode | undefined}
   */
  parent(node) {
    return node.parent == null ? undefined : this.nodes.get(node.parent);
  }
}
