"""JSON: its layouts, and the exports of annotation tools."""
