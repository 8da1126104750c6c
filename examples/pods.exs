# A dozen pods as one would write them. The script evaluates to the list:
#
#     {pods, _} = Code.eval_file("examples/pods.exs")
#     Enum.each(pods, &Tank.Store.put_pod/1)

mib = 1024 * 1024

[
  # The least a pod can be: no network, restarted whenever it stops.
  Tank.Pod.new!(name: "hello", containers: [[name: "app", image: "hello-world:latest"]]),

  # A web server that serves a directory of the host.
  Tank.Pod.new!(
    name: "web",
    containers: [
      [
        name: "nginx",
        image: "nginx:1.27",
        mounts: [[volume: "site", path: "/usr/share/nginx/html", read_only: true]],
        limits: %{memory: 256 * mib, pids: 128}
      ]
    ],
    volumes: [[name: "site", source: {:host, "/var/www/site"}]],
    network: [
      nics: [
        [name: "eth0", mode: :bridge, parent: "br0", ip: "10.0.0.10/24", gateway: "10.0.0.1"]
      ],
      dns: ["10.0.0.53", "1.1.1.1"]
    ]
  ),

  # A database: its data outlives the containers, its socket does not.
  Tank.Pod.new!(
    name: "postgres",
    containers: [
      [
        name: "server",
        image: "postgres:16",
        args: ["-c", "shared_buffers=1GB"],
        env: %{"POSTGRES_DB" => "shop", "PGDATA" => "/var/lib/postgresql/data/pg"},
        user: "999:999",
        mounts: [
          [volume: "data", path: "/var/lib/postgresql/data"],
          [volume: "socket", path: "/run/postgresql"]
        ],
        limits: %{memory: 4096 * mib, cpu: {200_000, 100_000}}
      ],
      [
        name: "exporter",
        image: "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
        env: %{"DATA_SOURCE_NAME" => "host=/run/postgresql user=postgres sslmode=disable"},
        mounts: [[volume: "socket", path: "/run/postgresql"]]
      ]
    ],
    volumes: [[name: "data"], [name: "socket", source: {:tmpfs, mib}]],
    network: [nics: [[name: "eth0", ip: {"10.0.0.20", 24}]]]
  ),

  # Sees the host's own interfaces, as a metrics agent must.
  Tank.Pod.new!(
    name: "node-exporter",
    network: :host,
    containers: [
      [
        name: "agent",
        image: "quay.io/prometheus/node-exporter:v1.8.1",
        args: ["--path.rootfs=/host"],
        mounts: [[volume: "host", path: "/host", read_only: true]]
      ]
    ],
    volumes: [[name: "host", source: {:host, "/"}]]
  ),

  # A router between two networks, with IPv4 and IPv6.
  Tank.Pod.new!(
    name: "edge-router",
    containers: [[name: "frr", image: "quay.io/frrouting/frr:9.1.0"]],
    network: [
      nics: [
        [name: "wan0", mode: :macvlan, parent: "enp1s0", ip: :dhcp],
        [name: "lan0", mode: :bridge, parent: "br-lan", ip: "192.168.10.1/24"],
        [name: "lan6", mode: :ipvlan, parent: "enp2s0", ip: {"2001:db8::1", 64}]
      ]
    ]
  ),

  # Limits as deep as the runtime wants them.
  Tank.Pod.new!(
    name: "transcoder",
    containers: [
      [
        name: "ffmpeg",
        image: "jrottenberg/ffmpeg:6.1-alpine",
        limits: %{
          memory: %{max: 2048 * mib, swap: 0},
          cpu: {350_000, 100_000},
          io: %{"8:0" => %{rbps: 50 * mib, wiops: :max}},
          rlimits: %{nofile: {1024, 4096}}
        }
      ]
    ]
  ),

  # Runs a root file system that was built by hand, with a terminal.
  Tank.Pod.new!(
    name: "rescue-shell",
    containers: [
      [
        name: "sh",
        image: {:rootfs, "/srv/rootfs/alpine-3.20"},
        command: ["/bin/sh", "-l"],
        tty: true
      ]
    ],
    restart: :never
  ),

  # A job: done when it succeeds, tried again when it fails.
  Tank.Pod.new!(
    name: "migrate-2024.06",
    containers: [
      [
        name: "migrate",
        image: "registry.example.com/shop/app:4.2.0",
        command: ["/app/bin/shop", "eval"],
        args: ["Shop.Release.migrate()"],
        env: %{"DATABASE_URL" => "ecto://shop@10.0.0.20/shop", "POOL_SIZE" => "2"},
        working_dir: "/app"
      ]
    ],
    network: [nics: [[name: "eth0", ip: {:ipam, "10.0.0.0/24"}]], dns: ["10.0.0.53"]],
    restart: :on_failure
  ),

  # Two containers that hand each other files.
  Tank.Pod.new!(
    name: "mail",
    containers: [
      [name: "smtp", image: "postfix:3.9", mounts: [[volume: "spool", path: "/var/spool"]]],
      [name: "filter", image: "rspamd/rspamd:3.8", mounts: [[volume: "spool", path: "/spool"]]]
    ],
    volumes: [[name: "spool", source: :empty_dir]]
  ),

  # A cache with nothing to keep and no disk.
  Tank.Pod.new!(
    name: "cache",
    containers: [
      [
        name: "redis",
        image: "redis:7.2",
        args: ["--save", "", "--maxmemory", "100mb"],
        mounts: [[volume: "scratch", path: "/data"]],
        limits: %{memory: 128 * mib}
      ]
    ],
    volumes: [[name: "scratch", source: :tmpfs]],
    network: [nics: [[name: "eth0", mode: :veth, ip: "10.0.1.2"]]]
  ),

  # As decoded from JSON: string keys, and values that JSON knows.
  Tank.Pod.new!(%{
    "name" => "from_json",
    "containers" => [
      %{
        "name" => "app",
        "image" => "ghcr.io/example/app@sha256:" <> String.duplicate("0f", 32),
        "env" => %{"GREETING" => "hello, wörld"},
        "limits" => %{"memory" => "512Mi", "cpu" => 0.5}
      }
    ]
  }),

  # Nothing but computing: no network, no volumes, an unprivileged user.
  Tank.Pod.new!(
    name: "batch-worker",
    network: :none,
    containers: [
      %Tank.Container{
        name: "worker",
        image: "python:3.12-slim",
        command: ["python", "-m", "work"],
        user: "nobody"
      }
    ],
    restart: :on_failure
  )
]
