// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import GRPCCore
package import GRPCProtobuf
internal import SwiftProtobuf

extension Blocktree_V1_Failure {
  /// An operation of a session stream that failed, with what a call of its own would have said.
  package init(_ status: GoogleRPCStatus) {
    self.init()
    self.code = Int32(status.code.rawValue)
    self.message = status.message
    for detail in status.details {
      if let info = detail.errorInfo {
        self.reason = info.reason
        self.metadata = info.metadata
      }
    }
  }
}
