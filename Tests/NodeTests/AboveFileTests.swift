// SPDX-License-Identifier: Apache-2.0

import Filesystem
import Foundation
import Inodes
import Sectors
import Synchronization
import Testing
import Trust

@testable import Node

@Suite("The file of what lies above")
struct AboveFileTests {
  private static func file() async throws -> AboveFile {
    let cluster = try await VolumeCluster()
    let record = Mutex<InodeRecord?>(nil)
    try await cluster.withVolume(faults: VolumeFaults()) { volume in
      let inode = try await cluster.makeFile()
      let found = try await volume.record(inode.fileID)
      record.withLock { $0 = found }
    }
    let content = AncestorCopies.SealedContent(
      nodes: [NodeKey(level: 1, index: 0): [UInt8](repeating: 1, count: TreeShape.nodeByteCount)],
      sectors: [0: [UInt8](repeating: 2, count: 4_096), 7: [UInt8](repeating: 3, count: 4_096)])
    return AboveFile(
      copies: AncestorCopies(
        records: [try #require(record.withLock { $0 })], content: content,
        links: [InodeNumber(5): 3, InodeNumber(6): 1]),
      chains: [cluster.node.credential.chain])
  }

  @Test("is read as it was written")
  func roundTrip() async throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/above"
    #expect(try AboveFile.read(path) == nil)
    var file = try await Self.file()
    #expect(try file.write(path))
    #expect(try AboveFile.read(path) == file)
    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    file.copies.content = nil
    file.copies.links = [:]
    #expect(try file.write(path))
    #expect(try AboveFile.read(path) == file)
  }

  @Test("is refused as a whole when any byte of it is another, or when it is cut short")
  func damaged() async throws {
    let bytes = try #require(try await Self.file().bytes)
    for index in stride(from: 0, to: bytes.count, by: 97) {
      var damaged = bytes
      damaged[index] ^= 0x10
      #expect(throws: NodeError.self, "\(index)") { try AboveFile(damaged, from: "above") }
    }
    for count in [0, 1, 17, 48, bytes.count - 1] {
      #expect(throws: NodeError.self, "\(count)") { try AboveFile(Array(bytes.prefix(count)), from: "above") }
    }
  }

  @Test("is refused when counts in it are beyond what there is")
  func counts() async throws {
    // The first number behind the heading is the count of records.
    let heading = Array("blocktree above\n".utf8) + [1]
    for count in [UInt32.max, 1, 2_048] {
      let body = heading + withUnsafeBytes(of: count.bigEndian) { Array($0) }
      #expect(throws: NodeError.self) { try AboveFile(body + Digest32(sha256: body).bytes, from: "above") }
    }
  }

  @Test("is not kept when it is too large")
  func tooLarge() async throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/above"
    var file = try await Self.file()
    #expect(try file.write(path))
    file.copies.content?.sectors[9] = [UInt8](repeating: 0, count: AboveFile.byteCountMax)
    #expect(try !file.write(path))
    #expect(try AboveFile.read(path) == nil)
  }
}

@Suite("A cluster that does not answer")
struct ClusterSilenceTests {
  @Test("is called by one at a time, after a while, until it answers")
  func silence() throws {
    let silence = ClusterSilence()
    let start = ContinuousClock.now
    func begin(_ seconds: Int) -> ClusterSilence.Call? { silence.begin(start + .seconds(seconds)) }
    // All that begin before anybody knows wait.
    let first = try #require(begin(0))
    let second = try #require(begin(1))
    silence.end(first, hasAnswered: false, waited: .seconds(5), start + .seconds(5))
    #expect(begin(5) == nil)
    silence.end(second, hasAnswered: false, waited: .seconds(5), start + .seconds(6))
    #expect(begin(8) == nil)
    let probe = try #require(begin(9))
    #expect(begin(9) == nil)
    silence.end(probe, hasAnswered: false, waited: .zero, start + .seconds(9))
    #expect(begin(11) == nil)
    let last = try #require(begin(12))
    silence.end(last, hasAnswered: true, waited: .zero, start + .seconds(13))
    #expect(begin(13) != nil && begin(13) != nil)
  }

  @Test("is called by everybody while it says at once that it can not be reached")
  func quick() throws {
    let silence = ClusterSilence()
    let call = try #require(silence.begin())
    silence.end(call, hasAnswered: false, waited: .milliseconds(100))
    #expect(silence.begin() != nil && silence.begin() != nil)
  }

  @Test("is not one of which a process says that it lives, whatever a call has waited for")
  func lives() throws {
    let silence = ClusterSilence()
    let start = ContinuousClock.now
    let call = try #require(silence.begin(start))
    silence.noteLife(start + .seconds(2))
    silence.end(call, hasAnswered: false, waited: .seconds(2), start + .seconds(9))
    #expect(silence.begin(start + .seconds(9)) != nil)
  }

  @Test("is tried by the next when whoever tried has gone")
  func cancelled() throws {
    let silence = ClusterSilence()
    let start = ContinuousClock.now
    let call = try #require(silence.begin(start))
    silence.end(call, hasAnswered: false, waited: .seconds(2), start + .seconds(2))
    let probe = try #require(silence.begin(start + .seconds(6)))
    #expect(silence.begin(start + .seconds(6)) == nil)
    silence.end(probe, hasAnswered: nil, waited: .zero, start + .seconds(7))
    #expect(silence.begin(start + .seconds(7)) != nil)
  }
}
