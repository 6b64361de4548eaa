// swift-tools-version: 6.2
import PackageDescription

// The manifest is the diagram: arrows point down only. See CONTRIBUTING.md for what lives where.

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  // An async call stays where its caller runs: waking another thread is dear.
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

extension Target.Dependency {
  static let argumentParser = product(name: "ArgumentParser", package: "swift-argument-parser")
  static let asn1 = product(name: "SwiftASN1", package: "swift-asn1")
  static let collections = product(name: "Collections", package: "swift-collections")
  static let configuration = product(name: "Configuration", package: "swift-configuration")
  static let coreMetrics = product(name: "CoreMetrics", package: "swift-metrics")
  static let crypto = product(name: "Crypto", package: "swift-crypto")
  static let grdb = product(name: "GRDB", package: "GRDB.swift")
  static let grpcCore = product(name: "GRPCCore", package: "grpc-swift-2")
  static let grpcProtobuf = product(name: "GRPCProtobuf", package: "grpc-swift-protobuf")
  static let grpcTransport = product(name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport")
  static let lifecycle = product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
  static let logging = product(name: "Logging", package: "swift-log")
  static let nioCore = product(name: "NIOCore", package: "swift-nio")
  static let nioHPACK = product(name: "NIOHPACK", package: "swift-nio-http2")
  static let nioHTTP1 = product(name: "NIOHTTP1", package: "swift-nio")
  static let nioHTTP2 = product(name: "NIOHTTP2", package: "swift-nio-http2")
  static let nioPosix = product(name: "NIOPosix", package: "swift-nio")
  static let nioSSL = product(name: "NIOSSL", package: "swift-nio-ssl")
  static let nioTLS = product(name: "NIOTLS", package: "swift-nio")
  static let protobuf = product(name: "SwiftProtobuf", package: "swift-protobuf")
  static let system = product(name: "SystemPackage", package: "swift-system")
  static let unixSignals = product(name: "UnixSignals", package: "swift-service-lifecycle")
  static let x509 = product(name: "X509", package: "swift-certificates")
}

func module(
  _ name: String, _ dependencies: [Target.Dependency], path: String? = nil, plugins: [Target.PluginUsage]? = nil
)
  -> Target
{
  .target(name: name, dependencies: dependencies, path: path, swiftSettings: strict, plugins: plugins)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let package = Package(
  name: "blocktree",
  products: [
    .library(name: "BlocktreeClient", targets: ["BlocktreeClient", "BlocktreeSchema"]),
    // Consensus for others, too: it depends on nothing here.
    .library(name: "Raft", targets: ["Raft"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
    .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
    .package(url: "https://github.com/grpc/grpc-swift-protobuf", from: "2.4.1"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    // Schema/ becomes Swift at build time; Generated/ stands in where there is no protoc.
    .executableTarget(name: "schema-generator", swiftSettings: strict),
    .plugin(
      name: "SchemaPlugin",
      capability: .buildTool(),
      dependencies: [
        "schema-generator",
        .product(name: "protoc-gen-swift", package: "swift-protobuf"),
        .product(name: "protoc-gen-grpc-swift-2", package: "grpc-swift-protobuf"),
      ],
      path: "Sources/Plugins/SchemaPlugin"),
    module("BlocktreeSchema", [.grpcCore, .grpcProtobuf, .protobuf], plugins: ["SchemaPlugin"]),
    tests("SchemaTests", ["BlocktreeSchema", "schema-generator", .crypto, .protobuf]),
    module("Trust", [.crypto, .x509, .asn1]),
    module("Routes", ["Trust"]),
    tests("RoutesTests", ["Routes", "Trust"]),
    // A domain of many processes in virtual time, for the tests of what they ask one another, and for the benchmark.
    module("DiscoverySimulation", ["Routes", "Trust"], path: "Tests/DiscoverySimulation"),
    tests("DiscoverySimulationTests", ["DiscoverySimulation", "Routes"]),
    module("Inodes", ["BlocktreeSchema", "Trust", .crypto, .protobuf]),
    module("Replication", ["Raft", "SectorStore"]),
    tests("ReplicationTests", ["Raft", "Replication", "SectorStore"]),
    module(
      "Sectors",
      [
        "BlocktreeSchema", "Inodes", "Raft", "Replication", "SectorStore", "Transport", "Trust", .grpcCore,
        .grpcProtobuf, .protobuf,
      ]),
    module(
      "Filesystem",
      [
        "BlocktreeSchema", "Inodes", "SectorStore", "Sectors", "Transport", "Trust", .collections, .crypto, .grpcCore,
        .grpcProtobuf, .nioCore, .nioPosix, .protobuf,
      ]),
    tests(
      "FilesystemTests",
      [
        "BlocktreeSchema", "Filesystem", "Inodes", "SectorStore", "Sectors", "Trust", .crypto, .grpcCore,
        .grpcProtobuf, .nioPosix, .protobuf,
      ]),
    module(
      "Discovery",
      [
        "BlocktreeSchema", "Filesystem", "Inodes", "Routes", "Sectors", "Transport", "Trust", .grpcCore, .grpcProtobuf,
        .protobuf,
      ]),
    tests(
      "DiscoveryTests",
      [
        "BlocktreeSchema", "Discovery", "Filesystem", "Inodes", "Routes", "SectorStore", "Sectors", "Transport",
        "Trust", .crypto, .grpcCore, .grpcProtobuf, .logging, .nioCore, .nioPosix, .protobuf,
      ]),
    tests("InodesTests", ["BlocktreeSchema", "Inodes", "Trust", .crypto, .protobuf]),
    tests(
      "SectorsTests",
      [
        "BlocktreeSchema", "Inodes", "Raft", "SectorStore", "Sectors", "Transport", "Trust", .grpcCore, .grpcProtobuf,
        .grpcTransport, .logging, .nioCore, .nioPosix, .protobuf,
      ]),
    module("SectorStore", [.crypto, .grdb]),
    // DNS, with c-ares of the system.
    .systemLibrary(name: "CAres", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),
    module("Resolver", ["CAres"]),
    // A real DNS server for tests.
    module("DNSFixture", [], path: "Tests/DNSFixture"),
    tests("ResolverTests", ["DNSFixture", "Resolver"]),
    module("Raft", []),
    module("Actors", []),
    tests("ActorsTests", ["Actors"]),
    module(
      "Relay",
      ["Actors", "BlocktreeSchema", "Transport", "Trust", .grpcCore, .grpcProtobuf, .protobuf]),
    tests(
      "RelayTests",
      [
        "Actors", "BlocktreeSchema", "Relay", "Transport", "Trust", .grpcCore, .grpcProtobuf, .protobuf,
      ]),
    module("Telemetry", [.coreMetrics]),
    tests("TelemetryTests", ["Telemetry", .coreMetrics]),
    module(
      "Transport",
      [
        "Trust", .grpcCore, .grpcProtobuf, .grpcTransport, .nioCore, .nioPosix, .nioTLS, .nioSSL, .nioHTTP2, .nioHPACK,
        .logging, .system,
      ]),
    module(
      "BlocktreeClient",
      [
        "BlocktreeSchema", "Inodes", "Resolver", "Routes", "Transport", "Trust", .crypto, .grpcCore, .grpcProtobuf,
        .nioCore, .nioPosix, .protobuf,
      ], path: "Sources/Client"),
    module(
      "Node",
      [
        "BlocktreeClient", "BlocktreeSchema", "Discovery", "Filesystem", "Inodes", "Raft", "Relay", "Replication",
        "Routes", "SectorStore", "Sectors", "Telemetry", "Transport", "Trust", .configuration, .coreMetrics, .grpcCore,
        .grpcProtobuf, .lifecycle, .logging, .nioCore, .nioHTTP1, .nioPosix, .protobuf, .system, .unixSignals,
      ]),
    .executableTarget(
      name: "btnode",
      dependencies: [
        "BlocktreeClient", "BlocktreeSchema", "Node", "Transport", "Trust", .argumentParser, .configuration, .logging,
        .nioPosix, .protobuf, .unixSignals,
      ],
      swiftSettings: strict),
    tests(
      "NodeTests",
      [
        "BlocktreeClient", "BlocktreeSchema", "Discovery", "Filesystem", "Inodes", "Node", "Relay", "SectorStore",
        "Sectors", "Transport", "Trust", "btnode", .configuration, .grpcCore, .grpcProtobuf, .logging, .nioCore,
        .nioPosix, .protobuf,
      ]),
    .executableTarget(
      name: "btrpc",
      dependencies: [
        "BlocktreeClient", "BlocktreeSchema", "Inodes", "Trust", .argumentParser, .grpcCore, .grpcProtobuf, .nioPosix,
        .protobuf,
      ], swiftSettings: strict),
    .executableTarget(
      name: "btbench",
      dependencies: [
        "Actors", "BlocktreeClient", "BlocktreeSchema", "DiscoverySimulation", "Inodes", "Node", "Routes", "Transport",
        "Trust", .argumentParser, .grpcCore, .nioCore, .nioPosix, .protobuf, .unixSignals,
      ],
      swiftSettings: strict),
    tests(
      "ClientTests",
      [
        "BlocktreeClient", "BlocktreeSchema", "DNSFixture", "Inodes", "Routes", "Transport", "Trust", "btrpc",
        .argumentParser,
        .crypto,
        .grpcCore, .grpcProtobuf, .logging, .nioCore, .nioPosix, .protobuf,
      ]),
    // Clients in other languages, the programs themselves, and bad input, against a real node.
    .testTarget(
      name: "InteropTests", dependencies: ["BlocktreeClient", "Trust", "btbench", "btnode", "btrpc"],
      path: "Tests/Interop", exclude: ["README.md", "c", "python"], swiftSettings: strict),
    // Clusters of real processes, what can happen to them, and what clients see meanwhile.
    .testTarget(
      name: "ClusterTests",
      dependencies: [
        "BlocktreeClient", "BlocktreeSchema", "Filesystem", "Inodes", "Linearizability", "Node", "Transport", "Trust",
        "btbench", "btnode", "btrpc", .grpcCore, .nioCore, .nioPosix,
      ], path: "Tests/Cluster", swiftSettings: strict),
    tests("TrustTests", ["Trust", .crypto, .x509, .asn1]),
    tests("SectorStoreTests", ["SectorStore", "StoreCrashWorker", .crypto]),
    // Killed again and again by the store's tests.
    .executableTarget(
      name: "StoreCrashWorker", dependencies: ["SectorStore"], path: "Tests/StoreCrashWorker", swiftSettings: strict),
    tests("RaftTests", ["Raft"]),
    // A world in virtual time around Raft, shared by its tests and by the program that runs any number of seeds; and what
    // judges the histories that clients record in it.
    module("Linearizability", [], path: "Tests/Linearizability"),
    module("RaftSimulation", ["Linearizability", "Raft"], path: "Tests/RaftSimulation"),
    .executableTarget(
      name: "simulate", dependencies: ["Raft", "RaftSimulation"], path: "Tests/simulate", swiftSettings: strict),
    tests("LinearizabilityTests", ["Linearizability"]),
    tests("RaftSimulationTests", ["Raft", "RaftSimulation"]),
    tests(
      "TransportTests",
      [
        "Transport", "Trust", .grpcCore, .grpcProtobuf, .grpcTransport, .nioCore, .nioPosix, .nioTLS, .nioSSL,
        .logging,
      ]),
  ]
)
