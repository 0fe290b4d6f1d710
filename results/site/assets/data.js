"use strict";
// Where data files hand over what they hold: rows by group, records by id. A file is a script, since pages that were
// opened from a disk may read nothing else.
window.compressbench = (() => {
  const groups = new Map();
  const records = new Map();
  const loading = new Map();

  function load(source) {
    if (!loading.has(source)) {
      loading.set(
        source,
        new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = source;
          script.onload = resolve;
          script.onerror = () => reject(new Error(`${source} can't be read`));
          document.head.append(script);
        }),
      );
    }
    return loading.get(source);
  }

  // FNV-1a of 32 bits over the UTF-8 bytes
  function bucketOf(id, numBuckets) {
    let hash = 2166136261;
    for (const byte of new TextEncoder().encode(id)) {
      hash = Math.imul(hash ^ byte, 16777619) >>> 0;
    }
    return hash % numBuckets;
  }

  return {
    board: null,
    load,
    bucketOf,
    addGroup: (index, data) => groups.set(index, data),
    addRecord: (id, data) => records.set(id, data),
    async group(index) {
      await load(`data/group-${index}.js`);
      return groups.get(index);
    },
    // undefined for an id that no file has
    async record(id, numBuckets) {
      await load(`data/records-${bucketOf(id, numBuckets)}.js`);
      return records.get(id);
    },
  };
})();
