"""One module per contestant, each with `CASES`: name -> function(**options) -> (run, facts), and `versions()`.

`run()` does the work once and waits for it. `facts` is what the parent must know: parameters, multiply-adds, the
score, the images of a run. The modules run in processes of their own; none imports another's framework.
"""
