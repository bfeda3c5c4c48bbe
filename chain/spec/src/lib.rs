//! chains.yaml as a typed chain: parsing, validation, plan.
