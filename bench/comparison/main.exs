# Compiles the harness and the comparison (bench/compare says where to) and runs it.
ebin = System.fetch_env!("BENCH_EBIN")

sources =
  Path.wildcard(Path.join(__DIR__, "../{lib,stores,workloads}/*.ex")) ++ Path.wildcard(Path.join(__DIR__, "**/*.ex"))

{:ok, _modules, _warnings} = Kernel.ParallelCompiler.compile_to_path(sources, ebin, return_diagnostics: true)
true = Code.prepend_path(ebin)
Tank.Bench.Comparison.main(System.argv())
