"""Everything between tasks: namespaces, links, overlay, filter rules, published ports, names."""
