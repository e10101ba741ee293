"""What every report is made of: HTML, Markdown, SVG and tables that escape what they hold."""
