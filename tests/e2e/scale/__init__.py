"""More than one host: object store, Milvus, Sentinel, network namespaces."""
