# Turn Markdown's tables into definition lists: a manual page has 80 columns, and a table may need more.
/^\|/ {
    line = $0
    sub(/^\| */, "", line)
    sub(/ *\|$/, "", line)
    count = split(line, cells, / *\| */)
    if (!inside) { inside = 1; for (i = 1; i <= count; i++) heading[i] = cells[i]; next }
    if (cells[1] ~ /^:?---/) next
    gsub(/`/, "", cells[1])
    print "**" cells[1] "**"
    text = ""
    for (i = 2; i <= count; i++)
        if (cells[i] != "") text = text (text == "" ? "" : "; ") (count > 2 && heading[i] != "" ? heading[i] ": " : "") cells[i]
    print ":   " text "\n"
    next
}
{ inside = 0; print }
