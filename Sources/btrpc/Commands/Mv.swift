// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc mv`
package struct Mv: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Move and rename files and directories.",
    discussion: """
      Within a cluster, a rename is one step. To another cluster's directory, files are copied and then removed, as \
      between filesystems: they get the caller as their owner, and names of one file become files of their own.

      EXAMPLES:
        btrpc mv /home/ann/draft.txt /home/ann/final.txt
        btrpc mv /inbox/1 /inbox/2 /archive
        btrpc mv /home/ann/photos /site-b/ann
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .shortAndLong, help: "Fail where a file would be replaced.")
  var noClobber = false

  @Flag(name: .shortAndLong, help: "Say what is copied and removed, as it can not be renamed.")
  var verbose = false

  @Argument(
    help: "What to move, and where: a new path, or a directory to move into.", completion: .file(),
    transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func validate() throws {
    guard self.paths.count >= 2 else { throw ValidationError("Name what to move, and where.") }
  }

  package func run(_ client: Client) async throws {
    guard let destination = self.paths.last else { return }
    let sources = self.paths.dropLast()
    let intoDirectory = try await client.isDirectory(destination, required: sources.count > 1)
    var array = JSONArrayWriter()
    try await self.forEach(Array(sources)) { source in
      guard let name = source.name else { throw CommandFailure("the root can not be moved") }
      let path = intoDirectory ? destination.appending(name) : destination
      let info = try await self.move(source, to: path, client)
      if self.options.json { try array.append(FileJSON(path: path.text, info: info)) }
    }
    if self.options.json { try array.finish() }
  }

  private func move(_ source: RemotePath, to path: RemotePath, _ client: Client) async throws -> FileInfo {
    do {
      return try await client.rename(source.text, to: path.text, replaces: !self.noClobber)
    } catch let error as BlocktreeError where error.reason == .crossGeneration {
      let info = try await DomainMove(client: client, replaces: !self.noClobber).run(source, to: path)
      if self.verbose {
        Standard.flushQuietly()
        Standard.complain(
          Terminal.escaped("btrpc: copied \(source) to \(path), which another cluster stores, and removed it"))
      }
      return info
    } catch let error as BlocktreeError {
      throw PathFailure(path: "\(source) to \(path)", error: error)
    }
  }
}

extension Client {
  /// Whether there is a directory that things are to be put into.
  ///
  /// - Parameter required: whether it is an error if not.
  func isDirectory(_ path: RemotePath, required: Bool) async throws -> Bool {
    do {
      if try await self.stat(path.text).type == .directory { return true }
    } catch let error as BlocktreeError where error.reason == .notFound && !required && !path.meansDirectory {
      return false
    } catch let error as BlocktreeError where error.reason == .permissionDenied && !required && !path.meansDirectory {
      // What may not be seen may still be written.
      return false
    } catch {
      throw PathFailure(path: path.text, error: error)
    }
    if required || path.meansDirectory { throw CommandFailure("\(path): this is not a directory") }
    return false
  }
}
