# Compiles the harness (bench/run says where to) and runs it: what is measured must not be evaluated line by line.
ebin = System.fetch_env!("BENCH_EBIN")
sources = Path.wildcard(Path.join(__DIR__, "{lib,stores,workloads}/*.ex"))
{:ok, _modules, _warnings} = Kernel.ParallelCompiler.compile_to_path(sources, ebin)
true = Code.prepend_path(ebin)
Tank.Bench.main(System.argv())
