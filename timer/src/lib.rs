//! A hashed, hierarchical timing wheel on an index slab.
