// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import SwiftProtobuf
import Testing

@Suite("The descriptor set")
struct SchemaDescriptorsTests {
  @Test("lists the services and their methods")
  func listsServices() {
    var methods: [String: Set<String>] = [:]
    for file in SchemaDescriptors.fileSet.file {
      for service in file.service { methods["\(file.package).\(service.name)"] = Set(service.method.map(\.name)) }
    }
    #expect(methods["blocktree.v1.SectorService"]?.contains("Commit") == true)
    #expect(methods["blocktree.v1.FilesystemService"]?.contains("Stat") == true)
    #expect(methods["grpc.health.v1.Health"]?.contains("Watch") == true)
    #expect(methods["grpc.reflection.v1.ServerReflection"] == ["ServerReflectionInfo"])
  }

  @Test("holds each file of Schema, after the files that it imports")
  func holdsEachFile() throws {
    let files = SchemaDescriptors.fileSet.file
    var before: Set<String> = []
    for file in files {
      #expect(before.isSuperset(of: file.dependency), "\(file.name)")
      before.insert(file.name)
    }
    #expect(before.isSuperset(of: try PackageFolder.schemaPaths()))
    #expect(files.count == before.count)
  }

  @Test("is the one that is committed")
  func isCommitted() throws {
    let committed = try Data(contentsOf: PackageFolder.generated.appending(path: "blocktree.binpb"))
    #expect(committed == Data(SchemaDescriptors.serialized))
  }
}

@Suite("A generated message")
struct MessageTests {
  @Test("is the same after a trip through JSON")
  func roundTrip() throws {
    let record = Blocktree_V1_InodeRecord.with {
      $0.fileID.generation = .max
      $0.fileID.inode = 2
      $0.version = 7
      $0.content.body = Data([0, 1, 254, 255])
      $0.content.signer = Data(repeating: 0xa5, count: 32)
    }
    let json = try record.jsonString()
    #expect(json.contains("\"18446744073709551615\""))
    #expect(try Blocktree_V1_InodeRecord(jsonString: json) == record)
    #expect(try Blocktree_V1_InodeRecord(serializedBytes: record.serializedBytes() as [UInt8]) == record)
  }

  @Test("keeps fields that a later version of the schema gave it")
  func unknownFields() throws {
    let later: [UInt8] = [0x08, 0x01, 0xf8, 0x7f, 0x2a]  // Field 1 = 1, field 2,047 = 42.
    let message = try Blocktree_V1_FileId(serializedBytes: later)
    #expect(message.generation == 1)
    #expect(try message.serializedBytes() as [UInt8] == later)
  }
}
