"""One module per contestant, each with `CASES`: name -> function(**options) -> (run, facts), and `versions()`.

`run()` does the work once and waits for it. `facts` is what the parent must know: parameters, multiply-adds.
The modules run in worker processes; none imports another's framework.
"""
