"""The dense series: its nodes, the scatter of records into it, and what is measured on it."""
