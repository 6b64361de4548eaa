// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import GRPCProtobuf
import Inodes
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

@Suite("The sector service")
struct ServiceTests {
  @Test("serves nobody without a credential that stands in the tree")
  func confirmed() async throws {
    try await withService { service in
      let stranger = try service.test.domain.principal(.user, "/stranger")
      // The path is right, the key is not.
      let former = try service.test.domain.principal(.user, "/ann")
      for principal in [nil, stranger, former] {
        try await service.call(as: principal) { connection in
          let client = connection.client
          let calls: [(String, () async throws -> Void)] = [
            ("records", { _ = try await connection.records(.rootDirectory) }),
            ("superblock", { _ = try await connection.records(file(1)) }),
            (
              "sectors",
              {
                _ = try await connection.read(
                  .with {
                    $0.fileID = file(2).message; $0.runs = [.with { $0.count = 1 }]
                  })
              }
            ),
            ("certificates", { _ = try await client.readCertificates(.init()) }),
            ("openSession", { _ = try await client.openSession(.init()) }),
            ("allocate", { _ = try await client.allocateInodes(.with { $0.count = 1 }) }),
            ("commit", { _ = try await client.commit(.init()) }),
            ("status", { _ = try await client.status(.init()) }),
            ("session", { _ = try await connection.session { try await $0.results(1) } }),
          ]
          for (name, call) in calls {
            let status = await failure { try await call() }
            #expect(status.code == .permissionDenied, "\(name)")
            #expect(status.reason == "PERMISSION_DENIED", "\(name)")
          }
        }
      }
      try await service.call(as: service.test.domain.bob) { _ = try await $0.client.status(.init()) }
    }
  }

  @Test("shows records to those with any permission, and says the same to others whether or not there is one")
  func records() async throws {
    try await withService { service in
      let test = service.test
      let secret = try await test.makeFile(mode: 0o600)
      let open = try await test.makeFile(mode: 0o640)
      let absent = try await test.number()
      try await service.call(as: test.domain.ann) { ann in
        let records = try await ann.records(secret.fileID, open.fileID, file(1), file(TestGroup.Inodes.bob))
        #expect(records.map(\.version) == [1, 1, 1, 1])
        #expect(try records.map { try InodeRecord($0).fileID } == [secret.fileID, open.fileID, file(1), file(5)])
      }
      try await service.call(as: test.domain.bob) { bob in
        let versions = try await bob.records(open.fileID).map(\.version)
        #expect(versions == [1])
        // Superblock and credentials are for everybody.
        #expect(try await bob.records(file(1), file(TestGroup.Inodes.node)).count == 2)
        let hidden = await failure { _ = try await bob.records(open.fileID, secret.fileID) }
        let missing = await failure { _ = try await bob.records(open.fileID, absent) }
        #expect(hidden.code == .permissionDenied)
        #expect(hidden == missing)
        let foreign = await failure { _ = try await bob.records(FileID(generation: 2, inode: 7)) }
        #expect(foreign.code == .failedPrecondition)
        #expect(foreign.reason == "WRONG_GENERATION")
        #expect(foreign.metadata == ["generation": "2"])
        let many = await failure {
          _ = try await bob.client.readRecords(.with { $0.fileIds = Array(repeating: file(1).message, count: 257) })
        }
        #expect(many.code == .invalidArgument)
        #expect(many.reason == "TOO_LARGE")
        let malformed = await failure { _ = try await bob.client.readRecords(.with { $0.fileIds = [.init()] }) }
        #expect(malformed.code == .invalidArgument)
        #expect(malformed.metadata["field"] == "file_ids")
      }
      // A filesystem service at the root, and a member, may know that there is none.
      try await service.call(as: test.domain.node) { node in
        let versions = try await node.records(secret.fileID, absent).map(\.version)
        #expect(versions == [1, 0])
      }
      let member = try test.domain.principal(.process, "/store2", services: [.sector])
      try await test.add(member, in: .rootDirectory)
      try await service.call(as: member) { member in
        let versions = try await member.records(secret.fileID, absent).map(\.version)
        #expect(versions == [1, 0])
      }
    }
  }

  @Test("streams runs of sectors and nodes of one version, holes as nothing, in messages of up to 128 KiB")
  func sectors() async throws {
    try await withService { service in
      let test = service.test
      var contents: [UInt64: [UInt8]] = [:]
      for index: UInt64 in 0..<200 where index != 5 { contents[index] = sector(UInt8(index)) }
      var inode = try await test.makeFile(sectors: contents)
      let record = try #require(inode.record)
      func request(_ runs: [(UInt32, UInt64, UInt32)], version: UInt64 = 0) -> Blocktree_V1_ReadSectorsRequest {
        .with {
          $0.fileID = inode.fileID.message
          $0.version = version
          $0.runs = runs.map { run in
            .with {
              $0.level = run.0
              $0.start = run.1
              $0.count = run.2
            }
          }
        }
      }
      try await service.call(as: test.domain.bob) { bob in
        let messages = try await bob.read(request([(2, 0, 1), (1, 0, 4), (0, 0, 200)]))
        for message in messages {
          #expect(try message.serializedData().count <= 128 << 10)
          #expect(message.version == 1)
        }
        let blocks = messages.flatMap(\.blocks)
        let levels: [UInt32] = [2] + [UInt32](repeating: 1, count: 4) + [UInt32](repeating: 0, count: 200)
        let indexes: [UInt64] = [0] + [UInt64](0..<4) + [UInt64](0..<200)
        #expect(blocks.map(\.level) == levels)
        #expect(blocks.map(\.index) == indexes)
        #expect(blocks.indices.filter { blocks[$0].bytes.isEmpty } == [10])
        var tree = IntegrityTree(record.content.part)
        for block in blocks where block.level > 0 {
          if block.level == 2 { try tree.insert(Array(block.bytes), at: NodeKey(level: 2, index: 0)) }
        }
        for block in blocks where block.level == 1 {
          try tree.insert(Array(block.bytes), at: NodeKey(level: 1, index: block.index))
        }
        for block in blocks where block.level == 0 && block.index != 5 {
          #expect(try tree.leaf(at: block.index).digest == Digest32(sha256: Array(block.bytes)))
        }
        let later = await failure { _ = try await bob.read(request([(0, 0, 1)], version: 2)) }
        #expect(later.code == .failedPrecondition)
        #expect(later.reason == "VERSION_GONE")
        #expect(later.metadata == ["file": "\(inode.fileID)", "version": "2", "current": "1"])
        for (runs, reason) in [
          ([], "INVALID_REQUEST"), ([(0, 0, 0)], "INVALID_REQUEST"), ([(7, 0, 1)], "INVALID_REQUEST"),
          ([(0, .max, 1)], "INVALID_REQUEST"), ([(0, 0, 65_537)], "TOO_LARGE"),
          (Array(repeating: (0, 0, 1), count: 65), "TOO_LARGE"),
        ] as [([(UInt32, UInt64, UInt32)], String)] {
          let status = await failure { _ = try await bob.read(request(runs)) }
          #expect(status.code == .invalidArgument)
          #expect(status.reason == reason)
        }
      }
      // Read permission is for reading; for somebody else there is nothing, be it there or not.
      inode.attributes.rules.mode = Mode(truncating: 0o620)
      try await test.apply(inode.commit(.attributes, by: test.domain.ann), by: test.domain.ann)
      try await service.call(as: test.domain.bob) { bob in
        let denied = await failure { _ = try await bob.read(request([(0, 0, 1)])) }
        #expect(denied.code == .permissionDenied)
        var absent = request([(0, 0, 1)])
        absent.fileID = try await test.number().message
        let nothing = await failure { [absent] in _ = try await bob.read(absent) }
        #expect(nothing == denied)
      }
      try await service.call(as: test.domain.node) { node in
        let version = try await node.read(request([(0, 0, 1)])).first?.version
        #expect(version == 2)
      }
    }
  }

  @Test("reads one version to the end, though the file is changed meanwhile")
  func stableReads() async throws {
    try await withService { service in
      let test = service.test
      let inode = try await test.makeFile(sectors: Dictionary(uniqueKeysWithValues: (0..<600).map { ($0, sector(1)) }))
      try await service.call(as: test.domain.ann) { ann in
        let request = Blocktree_V1_ReadSectorsRequest.with {
          $0.fileID = inode.fileID.message
          $0.runs = [.with { $0.count = 600 }]
        }
        let versions = try await ann.client.readSectors(request) { response in
          var versions: [UInt64] = []
          var changed = try await test.continuing(inode, toWriteAt: 599)
          for try await message in response.messages {
            if versions.isEmpty {
              try await test.apply(
                changed.commit(writing: sector(2), at: 599, by: test.domain.ann), by: test.domain.ann)
            }
            versions.append(message.version)
          }
          return versions
        }
        #expect(versions.count > 10)
        #expect(Set(versions) == [1])
        #expect(try await ann.read(request).last?.version == 2)
      }
    }
  }

  @Test("commits, with a receipt that its leader signed, and answers a repetition as one")
  func commit() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      let made = try await test.makeFile(mode: 0o644)
      try await service.call(as: ann) { connection in
        var inode = made
        let session = try await connection.client.openSession(.init()).session
        var commit = try inode.commit(writing: sector(1), at: 3, by: ann)
        commit.operations = [.init(id: OperationID(session: Array(session), sequence: 1), result: [])]
        let request = try commit.message
        let response = try await connection.client.commit(request)
        #expect(response.operation == request.operation)
        #expect(!response.repeatedAnswer)
        #expect(response.receipt.members == ["/node1"])
        // The receipt is checked with nothing but what the service hands out.
        var record = commit.records[0]
        record.acceptance = try Acceptance(#require(response.acceptances.first))
        let receipt = CommitReceipt(
          records: [record], logIndex: response.logIndex, members: try response.receipt.members.map(path),
          acceptancesDigest: Digest32(sha256: record.acceptanceDigest.bytes))
        let chains = try await connection.client.readCertificates(
          .with { $0.digests = [response.receipt.signer, Data(count: 32)] }
        ).chains
        #expect(chains.map { $0.certificates.isEmpty } == [false, true])
        let leader = try test.domain.verifier.verify(
          CertificateChain(chains[0].certificates.map { Array($0) }), at: .now)
        #expect(leader.path == test.domain.node.path)
        let signature = try BatchSignature(response.receipt.signature)
        #expect(
          signature.verify(digest: receipt.digest, purpose: .receipt, key: leader.verifyingKey, cache: nil))
        #expect(
          try #require(record.acceptance).signature.verify(
            digest: record.acceptanceDigest, purpose: .acceptance, key: leader.verifyingKey, cache: nil))

        let again = try await connection.client.commit(request)
        #expect(again.repeatedAnswer)
        #expect(again.acceptances.isEmpty)
        #expect(try await connection.records(inode.fileID).first?.version == 2)
        let stale = await failure {
          var request = request
          request.clearOperation()
          _ = try await connection.client.commit(request)
        }
        #expect(stale.code == .aborted)
        #expect(stale.reason == "CONFLICT")
        #expect(stale.metadata == ["file": "\(inode.fileID)", "current": "2"])
      }
      try await service.call(as: test.domain.bob) { bob in
        var inode = try await test.continuing(made, toWriteAt: 0)
        let request = try inode.commit(writing: sector(2), by: test.domain.bob).message
        let denied = await failure { _ = try await bob.client.commit(request) }
        #expect(denied.code == .permissionDenied)
      }
    }
  }

  @Test("refuses malformed requests with the field that is wrong, and goes on")
  func malformed() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      var inode = try await test.makeFile(sectors: [0: sector(1)])
      let good = try inode.commit(writing: sector(2), at: 8, by: ann).message
      try await service.call(as: ann) { connection in
        let changes: [(String, (inout Blocktree_V1_CommitRequest) -> Void)] = [
          (
            "operation",
            {
              $0.operation = .with {
                $0.session = Data([1]); $0.sequence = 1
              }
            }
          ),
          ("operation", { $0.operation = .with { $0.session = Data(count: 16) } }),
          ("conditions", { $0.conditions = [.init()] }),
          ("removals", { $0.removals = [.with { $0.inode = 3 }] }),
          ("chains", { $0.chains = [.init()] }), ("chains", { $0.chains = [.with { $0.certificates = [Data([1])] }] }),
          ("blocks.file_id", { $0.blocks[0].clearFileID() }), ("blocks", { $0.blocks.append($0.blocks[0]) }),
          ("blocks", { $0.blocks[0].blocks[0].bytes = Data() }),
          ("blocks", { $0.blocks[0].blocks[0].bytes = Data(count: 4_095) }),
          ("blocks", { $0.blocks[0].blocks[0].level = 7 }), ("blocks", { $0.blocks[0].blocks[0].index = .max }),
          ("blocks", { $0.blocks[0].blocks.append($0.blocks[0].blocks[0]) }),
          ("content_id", { $0.records[0].content.body = Data([0x10, 1, 0x20, 0x80, 0x20]) }),
          ("signature", { $0.records[0].clearLinks() }), ("file_id", { $0.records[0].clearFileID() }),
          (
            "records",
            {
              $0.records = []; $0.blocks = []
            }
          ),
          ("records", { $0.records.append($0.records[0]) }),
        ]
        for (field, change) in changes {
          var request = good
          change(&request)
          let status = await failure { [request] in _ = try await connection.client.commit(request) }
          #expect(status.code == .invalidArgument, "\(field)")
          #expect(status.metadata["field"] == field)
        }
        // Not even protobuf.
        for method in [
          Blocktree_V1_SectorService.Method.Commit.descriptor, Blocktree_V1_SectorService.Method.ReadRecords.descriptor,
        ] {
          let status = await failure {
            _ = try await connection.connection.client.unary(
              request: ClientRequest(message: [UInt8](repeating: 0xFF, count: 100)), descriptor: method,
              serializer: RawCoder(), deserializer: RawCoder(), options: .defaults
            ) { try $0.message }
          }
          #expect(status.code == .invalidArgument)
        }
        // Larger than any message may be, and than any commit.
        let huge = await failure {
          _ = try await connection.connection.client.unary(
            request: ClientRequest(message: [UInt8](repeating: 0, count: 9 << 20)),
            descriptor: Blocktree_V1_SectorService.Method.Commit.descriptor, serializer: RawCoder(),
            deserializer: RawCoder(), options: .defaults
          ) { try $0.message }
        }
        #expect(huge.code == .resourceExhausted)
        var large = good
        large.blocks[0].blocks += (100..<1_200 as Range<UInt64>).map { index in
          .with {
            $0.index = index; $0.bytes = Data(count: 4_096)
          }
        }
        let status = await failure { [large] in _ = try await connection.client.commit(large) }
        #expect(status.code == .invalidArgument)
        #expect(status.reason == "TOO_LARGE")
        let acceptances = try await connection.client.commit(good).acceptances
        #expect(!acceptances.isEmpty)
      }
    }
  }

  @Test("says where the disk is damaged")
  func damage() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      var inode = try await test.makeFile(sectors: [0: sector(1), 1: sector(2)])
      let commit = try inode.commit(writing: sector(3), at: 2, by: ann)
      try await test.apply(commit, by: ann)
      try test.damage(#require(commit.blocks[inode.fileID]?.runs.first?.bytes), in: "sectors")
      let file = inode.fileID
      try await service.call(as: ann) { connection in
        let request = Blocktree_V1_ReadSectorsRequest.with {
          $0.fileID = file.message
          $0.runs = [.with { $0.count = 3 }]
        }
        let status = await failure { _ = try await connection.read(request) }
        #expect(status.code == .dataLoss)
        #expect(status.reason == "DATA_LOSS")
        #expect(status.metadata == ["file": "\(file)", "part": "sector", "level": "0", "index": "2"])
        let result = try await connection.session { stream in
          stream.send([
            .with {
              $0.id = 1; $0.readSectors = request
            }
          ])
          return try await stream.results(1).byID[1]
        }
        #expect(result?.failure.code == Int32(RPCError.Code.dataLoss.rawValue))
        #expect(result?.failure.metadata["index"] == "2")
      }
    }
  }

  @Test("says how it is")
  func status() async throws {
    try await withService { service in
      let test = service.test
      let made = try await test.makeFile(sectors: [0: sector(1)])
      try await service.call(as: test.domain.bob) { bob in
        let status = try await bob.client.status(.init())
        #expect(status.generation == 1)
        #expect(status.superblock.sectorSize == 4_096)
        #expect(status.superblock.formatVersion == 1)
        #expect(status.superblock.cipherSuite == .aes256GcmSha256)
        #expect(status.superblock.nextInode == made.fileID.inode.rawValue + 1)
        #expect(status.inodes == 8)
        #expect(status.member == "/node1")
        #expect(status.role == "leader")
        #expect(status.appliedIndex > 0)
        #expect(status.sectorBytesUsed >= 4_096)
        #expect(status.sectorBytesAllocated >= status.sectorBytesUsed)
        #expect(status.diskBytesFree > 0)
        let numbers = try await bob.client.allocateInodes(.with { $0.count = 10 })
        #expect(numbers.generation == 1)
        #expect(numbers.count == 10)
        #expect(numbers.first == status.superblock.nextInode)
        let none = await failure { _ = try await bob.client.allocateInodes(.init()) }
        #expect(none.code == .invalidArgument)
      }
    }
  }
}

@Suite("A session stream")
struct SessionTests {
  @Test("performs 256 operations at once, in few messages, and answers each")
  func manyInFlight() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      var inodes: [TestInode] = []
      for _ in 0..<64 { inodes.append(try await test.makeFile()) }
      var operations: [Blocktree_V1_SectorOperation] = []
      for round in 0..<4 {
        for index in inodes.indices {
          let commit = try inodes[index].commit(writing: sector(UInt8(round)), at: UInt64(round), by: ann).message
          operations.append(
            .with {
              $0.id = UInt64(operations.count); $0.commit = commit
            })
        }
      }
      try await service.call(as: ann) { [operations] connection in
        try await connection.session { stream in
          stream.send(operations)
          let (results, sizes) = try await stream.results(256)
          #expect(results.count == 256)
          for result in results.values { #expect(result.commit.acceptances.count == 1) }
          // Receipts that went out together share a signature, and so do acceptances that came in together.
          let receipts = Set(results.values.map { $0.commit.receipt.signature.encoded.suffix(64) })
          #expect(receipts.count <= sizes.count)
          let acceptances = Set(results.values.compactMap { $0.commit.acceptances.first?.signature.encoded.suffix(64) })
          #expect(acceptances.count == 1)
          #expect(sizes.count < 64)
        }
      }
      for inode in inodes { #expect(try await test.read(inode)?.count == 4) }
    }
  }

  @Test("takes more than that as others are answered, and reads of all kinds beside commits")
  func backpressure() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      let made = try await test.makeFile(
        sectors: Dictionary(uniqueKeysWithValues: (0..<256).map { ($0, sector(UInt8($0 & 255))) }))
      try await service.call(as: ann) { connection in
        try await connection.session { stream in
          var id: UInt64 = 0
          func next(_ fill: (inout Blocktree_V1_SectorOperation) -> Void) -> Blocktree_V1_SectorOperation {
            defer { id += 1 }
            return .with {
              $0.id = id
              fill(&$0)
            }
          }
          var inode = made
          // 64 MiB of answers: far more than may be in flight.
          for _ in 0..<64 {
            let read = next {
              $0.readSectors = .with {
                $0.fileID = made.fileID.message
                $0.runs = [.with { $0.count = 256 }]
              }
            }
            stream.send([
              read, next { $0.readRecords = .with { $0.fileIds = [made.fileID.message] } },
              next { $0.allocateInodes = .with { $0.count = 1 } },
            ])
          }
          var commits: [Blocktree_V1_SectorOperation] = []
          for number in 0..<20 {
            let request = try inode.commit(writing: sector(UInt8(number)), at: 300, by: ann).message
            commits.append(next { $0.commit = request })
          }
          stream.send(commits)
          let (results, _) = try await stream.results(Int(id))
          #expect(results.count == 64 * 3 + 20)
          var numbers: Set<UInt64> = []
          for result in results.values {
            if case .allocateInodes(let allocated)? = result.result { numbers.insert(allocated.first) }
          }
          #expect(numbers.count == 64)
          for result in results.values {
            if case .failure(let failure)? = result.result { Issue.record("\(failure)") }
            if case .readSectors(let read)? = result.result { #expect(read.blocks.count == 256) }
          }
        }
      }
    }
  }

  @Test("answers a failed operation with why, and goes on")
  func failures() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      let made = try await test.makeFile()
      try await service.call(as: ann) { connection in
        try await connection.session { stream in
          var inode = made
          let good = try inode.commit(writing: sector(1), by: ann).message
          var stale = inode
          _ = try stale.commit(writing: sector(1), by: ann)
          let ahead = try stale.commit(writing: sector(1), by: ann).message
          var malformed = good
          malformed.records[0].clearFileID()
          stream.send([
            .with {
              $0.id = 1; $0.commit = ahead
            },
            .with {
              $0.id = 2; $0.commit = malformed
            }, .with { $0.id = 3 },
            .with {
              $0.id = 4; $0.readRecords = .with { $0.fileIds = [FileID(generation: 9, inode: 1).message] }
            },
            .with {
              $0.id = 5;
              $0.readSectors = .with {
                $0.fileID = made.fileID.message; $0.runs = [.with { $0.count = 257 }]
              }
            },
            .with {
              $0.id = 6; $0.commit = good
            },
          ])
          let results = try await stream.results(6).byID
          let expected: [(UInt64, RPCError.Code, String)] = [
            (1, .aborted, "CONFLICT"), (2, .invalidArgument, "INVALID_REQUEST"),
            (3, .invalidArgument, "INVALID_REQUEST"),
            (4, .failedPrecondition, "WRONG_GENERATION"), (5, .invalidArgument, "TOO_LARGE"),
          ]
          for (id, code, reason) in expected {
            #expect(results[id]?.failure.code == Int32(code.rawValue), "\(id)")
            #expect(results[id]?.failure.reason == reason, "\(id)")
            #expect(results[id]?.failure.message.isEmpty == false)
          }
          #expect(results[1]?.failure.metadata["file"] == "\(made.fileID)")
          #expect(results[6]?.commit.acceptances.count == 1)
          // And on.
          let next = try inode.commit(writing: sector(2), by: ann).message
          stream.send([
            .with {
              $0.id = 7; $0.commit = next
            }
          ])
          #expect(try await stream.results(1).byID[7]?.commit.acceptances.count == 1)
        }
      }
    }
  }

  @Test("is ended by a malformed message, after what came before is answered, and by too many operations in one")
  func malformed() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      var inode = try await test.makeFile()
      let commit = try inode.commit(writing: sector(1), by: ann).message
      let good: [UInt8] = try Blocktree_V1_SectorServiceSessionRequest.with {
        $0.operations = [
          .with {
            $0.id = 1; $0.commit = commit
          }
        ]
      }.serializedBytes()
      try await service.call(as: ann) { connection in
        let messages = Mutex<[[UInt8]]>([])
        let status = await failure {
          _ = try await connection.connection.client.bidirectionalStreaming(
            request: StreamingClientRequest { writer in
              try await writer.write(good)
              try await writer.write([UInt8](repeating: 0xFF, count: 20))
            }, descriptor: Blocktree_V1_SectorService.Method.Session.descriptor, serializer: RawCoder(),
            deserializer: RawCoder(), options: .defaults
          ) { response in
            for try await message in response.messages { messages.withLock { $0.append(message) } }
          }
        }
        #expect(status.code == .invalidArgument)
        let results = try messages.withLock { $0 }.flatMap {
          try Blocktree_V1_SectorServiceSessionResponse(serializedBytes: $0).results
        }
        #expect(results.map(\.id) == [1])
        #expect(results.first?.commit.acceptances.count == 1)

        let many = await failure {
          try await connection.session { stream in
            stream.send(Array(repeating: .init(), count: 257))
            _ = try await stream.results(257)
          }
        }
        #expect(many.code == .invalidArgument)
        #expect(many.reason == "TOO_LARGE")
        _ = try await connection.client.status(.init())
      }
    }
  }

  @Test("ends for a principal that is removed from the tree")
  func revoked() async throws {
    try await withService { service in
      let test = service.test
      let dora = try test.domain.principal(.user, "/dora")
      let credential = try await test.add(dora, in: .rootDirectory)
      let readable = try await test.makeFile()
      try await service.call(as: dora) { connection in
        let status = await failure {
          try await connection.session { stream in
            let read = Blocktree_V1_SectorOperation.with {
              $0.readRecords = .with { $0.fileIds = [readable.fileID.message] }
            }
            stream.send([read])
            #expect(try await stream.results(1).byID[0]?.readRecords.records.count == 1)
            var removal = Commit()
            removal.removals = [credential.fileID]
            try await test.apply(removal, by: test.domain.node)
            stream.send([read])
            _ = try await stream.results(1)
          }
        }
        #expect(status.code == .permissionDenied)
      }
    }
  }

  @Test("of a client that vanishes leaves the service serving")
  func vanished() async throws {
    try await withService { service in
      let test = service.test
      let ann = test.domain.ann
      let made = try await test.makeFile(sectors: Dictionary(uniqueKeysWithValues: (0..<256).map { ($0, sector(1)) }))
      for _ in 0..<3 {
        _ = await failure {
          try await service.call(as: ann) { connection in
            try await connection.session { stream in
              for id in 0..<64 {
                stream.send([
                  .with {
                    $0.id = UInt64(id)
                    $0.readSectors = .with {
                      $0.fileID = made.fileID.message
                      $0.runs = [.with { $0.count = 256 }]
                    }
                  }
                ])
              }
              _ = try await stream.results(1)
              connection.connection.close()
              throw TestFailure()
            }
          }
        }
      }
      try await service.call(as: ann) { connection in
        let version = try await connection.records(made.fileID).first?.version
        #expect(version == 1)
      }
    }
  }
}
