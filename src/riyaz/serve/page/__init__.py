"""The page of `riyaz serve` and `riyaz ui`: its built files, and what it asks for under /page/.

Everything under /page/ needs the page's token, and every file it names lies in the folder that the page was started in.
What trains or measures is the command line in a process of its own; the page reads the files that it writes.
"""
